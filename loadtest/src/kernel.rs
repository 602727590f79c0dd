//! What the system says of itself: the memory that the kernel keeps, of which open connections take the larger part.
//!
//! All of it is the whole machine's, whoever caused it, except for the number of sockets, which is that of this network namespace. What a run
//! costs is the difference between two readings on an otherwise idle machine.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};

use crate::process::{field, kib};

/// What a socket is to a process, in bytes (`sock_inode_cache` and `dentry`): counted as reclaimable, and yet there as long as the socket is.
const SOCKET: u64 = 832 + 192;

/// The kernel's memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// What the kernel keeps for itself: slabs that it cannot give back, sockets, what connections have in their queues, page tables and stacks.
    /// What it remembers of files only as long as there is room is not in it. Of what is queued, the part that is in slabs counts twice.
    pub own: u64,
    /// What could be had by one who asked for it: free memory, and what is kept only as long as there is room.
    pub available: u64,
    /// Objects of a fixed size.
    pub slab: u64,
    /// Of these, what it cannot give back when memory runs out.
    pub unreclaimable: u64,
    /// What maps the memory of processes.
    pub page_tables: u64,
    /// What connections have in their send and receive queues, with what surrounds it: partly in slabs, partly in pages.
    pub tcp_buffers: u64,
    /// TCP sockets that are open, in this network namespace.
    pub tcp_sockets: u64,
    /// TCP sockets of connections that are over, kept for a while in case something is still under way.
    pub time_wait: u64,
}

impl Kernel {
    /// As it is now: quick enough to be read several times a second.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn read() -> Result<Self> {
        let memory = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
        let sockets = fs::read_to_string("/proc/net/sockstat").context("cannot read /proc/net/sockstat")?;
        let sockets6 = fs::read_to_string("/proc/net/sockstat6").unwrap_or_default();
        let page = rustix::param::page_size() as u64;
        let kernel = Self::parse(&memory, &sockets, &sockets6, page);
        kernel.context("/proc/meminfo or /proc/net/sockstat is not as expected")
    }

    fn parse(memory: &str, sockets: &str, sockets6: &str, page: u64) -> Option<Self> {
        let bytes = |name| Some(kib(memory, name)? * 1_024);
        let tcp = field(sockets, "TCP:")?;
        let tcp6 = field(sockets6, "TCP6:").unwrap_or_default();
        let unreclaimable = bytes("SUnreclaim:")?;
        let page_tables = bytes("PageTables:")?;
        let tcp_buffers = pair(tcp, "mem")? * page;
        let used = SOCKET * pair(field(sockets, "sockets:")?, "used")?;
        Some(Self {
            own: unreclaimable + used + tcp_buffers + page_tables + bytes("KernelStack:")?,
            available: bytes("MemAvailable:")?,
            slab: bytes("Slab:")?,
            unreclaimable,
            page_tables,
            tcp_buffers,
            tcp_sockets: pair(tcp, "inuse")? + pair(tcp6, "inuse").unwrap_or_default(),
            time_wait: pair(tcp, "tw")?,
        })
    }
}

/// The number behind a name, in a line of names and numbers.
fn pair(line: &str, name: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    words.find(|&word| word == name)?;
    words.next()?.parse().ok()
}

/// Objects of one kind in the kernel's slabs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Objects {
    /// In use.
    pub count: u64,
    /// What the slabs take that hold them, in bytes: free places included.
    pub bytes: u64,
}

/// Objects by kind, from `/proc/slabinfo`, which only the system's administrator may read. Kinds of like size may share slabs, under the name
/// of one of them.
///
/// # Errors
/// If it cannot be read.
pub fn objects() -> Result<BTreeMap<String, Objects>> {
    let text = fs::read_to_string("/proc/slabinfo").context("cannot read /proc/slabinfo")?;
    Ok(parse_objects(&text, rustix::param::page_size() as u64))
}

fn parse_objects(slabinfo: &str, page: u64) -> BTreeMap<String, Objects> {
    // name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables … : slabdata <active_slabs> <num_slabs> <sharedavail>
    let parse = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        let count = fields.next()?.parse().ok()?;
        let pages: u64 = fields.nth(3)?.parse().ok()?;
        let (_, slabs) = line.split_once("slabdata")?;
        let slabs: u64 = slabs.split_ascii_whitespace().nth(1)?.parse().ok()?;
        let bytes = slabs * pages * page;
        Some((name.to_owned(), Objects { count, bytes }))
    };
    slabinfo.lines().filter_map(parse).collect()
}

/// What there is more of than before, by kind: that with the most memory first.
#[must_use]
pub fn growth(before: &BTreeMap<String, Objects>, after: &BTreeMap<String, Objects>) -> Vec<(String, Objects)> {
    let more = after.iter().map(|(name, after)| {
        let before = before.get(name).copied().unwrap_or_default();
        let more = Objects {
            count: after.count.saturating_sub(before.count),
            bytes: after.bytes.saturating_sub(before.bytes),
        };
        (name.clone(), more)
    });
    let mut more: Vec<_> = more.filter(|(_, more)| more.bytes > 0).collect();
    more.sort_by_key(|(_, more)| std::cmp::Reverse(more.bytes));
    more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_keeps_is_what_it_cannot_give_back() {
        let memory = "MemTotal: 1000 kB\nMemFree: 300 kB\nMemAvailable: 500 kB\nKernelStack: 5 kB\n\
                      Slab: 120 kB\nSReclaimable: 40 kB\nSUnreclaim: 80 kB\nPageTables: 10 kB\n";
        let sockets = "sockets: used 18\nTCP: inuse 7 orphan 0 tw 3 alloc 9 mem 60\nUDP: inuse 0 mem 0\n";
        let kernel = Kernel::parse(memory, sockets, "TCP6: inuse 2\n", 4_096).expect("parses");
        let expected = Kernel {
            own: (80 + 18 + 240 + 10 + 5) * 1_024,
            available: 500 * 1_024,
            slab: 120 * 1_024,
            unreclaimable: 80 * 1_024,
            page_tables: 10 * 1_024,
            tcp_buffers: 60 * 4_096,
            tcp_sockets: 9,
            time_wait: 3,
        };
        assert_eq!(kernel, expected);
        assert_eq!(Kernel::parse(memory, "", "", 4_096), None);
    }

    #[test]
    fn objects_are_counted_with_the_slabs_that_hold_them() {
        let slabinfo = "slabinfo - version: 2.1\n\
            # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n\
            bio-312               12     12    320   12    1 : tunables    0    0    0 : slabdata      1      1      0\n\
            TCP                 2000   2006   2368   13    8 : tunables    0    0    0 : slabdata    154    155      0\n";
        let objects = parse_objects(slabinfo, 4_096);
        let tcp = Objects {
            count: 2_000,
            bytes: 155 * 8 * 4_096,
        };
        assert_eq!(objects["TCP"], tcp);
        let mut before = objects.clone();
        before.remove("bio-312");
        before.insert(
            "TCP".to_owned(),
            Objects {
                count: 13,
                bytes: 32_768,
            },
        );
        let more = growth(&before, &objects);
        let names: Vec<_> = more.iter().map(|(name, more)| (name.as_str(), more.count)).collect();
        assert_eq!(names, [("TCP", 1_987), ("bio-312", 12)]);
    }

    #[test]
    fn this_machine_is_readable() {
        let kernel = Kernel::read().expect("readable");
        assert!(kernel.own > 0 && kernel.slab > 0);
    }
}
