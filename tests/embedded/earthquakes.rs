//! The main job on real input: every record of a file, to one reader that follows all networks and to another that follows two, while
//! the server and the readers are killed.
//!
//! The file is the one that `TIDINGS_QUAKES` names, or `../shared/data/earthquakes.ndjson` beside the clone, or else the slice that comes with
//! the project, repeated under derived ids to the same number of records. The same test runs on each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use serde_json::Value;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    sync::watch,
};

use crate::{
    growing::{Growing, count_lines},
    node::{Node, tidings},
    patiently,
};

/// How many records the whole file has.
const RECORDS: usize = 1_707;
/// How far publishing is let ahead of what is waited for: what is killed, is killed in the middle of so many.
const AHEAD: usize = 150;

struct Record {
    /// The network it is from.
    net: String,
    line: String,
}

/// The records, and where they are from.
fn records() -> (Vec<Record>, String) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let given = std::env::var_os("TIDINGS_QUAKES").map(PathBuf::from);
    let beside = Some(project.join("../shared/data/earthquakes.ndjson")).filter(|path| path.exists());
    let slice = project.join("examples/earthquakes.ndjson");
    let path = given.or(beside).unwrap_or(slice);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines: Vec<&str> = text.lines().collect();
    let records: Vec<_> = (0..RECORDS.max(lines.len()))
        .map(|at| {
            let line = lines[at % lines.len()];
            let mut record: Value = serde_json::from_str(line).expect("records are JSON");
            let net = record["properties"]["net"].as_str().expect("a network").to_owned();
            let line = match at / lines.len() {
                0 => line.to_owned(),
                repeat => {
                    let id = record["id"].as_str().expect("an id");
                    record["id"] = format!("{id}~repeat-{repeat}").into();
                    record.to_string()
                }
            };
            Record { net, line }
        })
        .collect();
    let what = format!(
        "{} records, {} of them real, from {}",
        records.len(),
        lines.len(),
        path.display()
    );
    (records, what)
}

/// A process that follows topics into a file, as often as it is killed.
struct Reader {
    name: &'static str,
    url: String,
    dir: PathBuf,
    nets: BTreeSet<String>,
    child: Child,
}

impl Reader {
    fn start(node: &Node, name: &'static str, nets: BTreeSet<String>) -> Self {
        let (url, dir) = (node.addresses().streams_url(), node.dir().to_path_buf());
        let child = Self::listen(&url, &dir, name, &nets);
        Self {
            name,
            url,
            dir,
            nets,
            child,
        }
    }

    fn listen(url: &str, dir: &Path, name: &str, nets: &BTreeSet<String>) -> Child {
        tidings()
            .arg("listen")
            .args(nets.iter().map(|net| format!("quakes/{net}")))
            .args(["--url", url, "--since", "earliest", "--json", "--output", name])
            .current_dir(dir)
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts")
    }

    async fn crash(&mut self) {
        self.child.kill().await.expect("it runs");
        self.child = Self::listen(&self.url, &self.dir, self.name, &self.nets);
    }

    fn lines(&self) -> usize {
        count_lines(&self.dir.join(self.name))
    }

    /// What it has, per network and in its order.
    fn received(&self) -> BTreeMap<String, Vec<String>> {
        let text = fs::read_to_string(self.dir.join(self.name)).expect("text");
        let mut received = BTreeMap::<_, Vec<_>>::new();
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).expect("whole lines of JSON");
            assert_eq!(event["event"], "earthquake", "{line}");
            let data = event["data"].as_str().expect("text");
            let record: Value = serde_json::from_str(data).expect("a record");
            let net = record["properties"]["net"].as_str().expect("a network");
            received.entry(net.to_owned()).or_default().push(data.to_owned());
        }
        received
    }

    /// What it should have.
    fn due(&self, records: &[Record]) -> BTreeMap<String, Vec<String>> {
        let mut due = BTreeMap::<_, Vec<_>>::new();
        for record in records.iter().filter(|record| self.nets.contains(&record.net)) {
            due.entry(record.net.clone()).or_default().push(record.line.clone());
        }
        due
    }
}

fn publish(node: &Node) -> Command {
    let mut command = tidings();
    command
        .args(["publish", "--ndjson", "-", "--topic", "quakes/{properties.net}"])
        .args(["--type", "earthquake", "--key", "{id}"])
        .args(["--url", &node.addresses().publish_url()])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Publishes, letting no more lines in than allowed so far.
async fn feed(mut child: Child, lines: Vec<String>, mut allowed: watch::Receiver<usize>) -> Output {
    let mut input = child.stdin.take().expect("piped");
    for (number, line) in lines.into_iter().enumerate() {
        let is_allowed = allowed.wait_for(|&allowed| number < allowed);
        patiently("leave to go on", is_allowed).await.expect("a driver");
        input.write_all(line.as_bytes()).await.expect("a reader");
        input.write_all(b"\n").await.expect("a reader");
    }
    drop(input);
    patiently("the publisher's end", child.wait_with_output())
        .await
        .expect("output")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_arrives_once_and_in_order_through_five_kills() {
    let (records, what) = records();
    println!("{what}");
    let lines: Vec<String> = records.iter().map(|record| record.line.clone()).collect();
    let total = lines.len();
    let mut counts = BTreeMap::<_, usize>::new();
    for record in &records {
        *counts.entry(record.net.clone()).or_default() += 1;
    }
    let nets: BTreeSet<_> = counts.keys().cloned().collect();
    // The largest network and a middling one.
    let mut by_size: Vec<_> = counts.iter().map(|(net, count)| (*count, net.clone())).collect();
    by_size.sort_unstable();
    let two = BTreeSet::from([
        by_size[by_size.len() - 1].1.clone(),
        by_size[by_size.len() / 2].1.clone(),
    ]);

    let mut node = Node::start().await;
    let mut growing = Growing::watch(node.dir());
    let mut all = Reader::start(&node, "all.ndjson", nets);
    let mut some = Reader::start(&node, "some.ndjson", two);
    let (allow, allowed) = watch::channel(0);
    let publisher = publish(&node).spawn().expect("the program starts");
    let publisher = tokio::spawn(feed(publisher, lines.clone(), allowed));

    for step in 1..=5 {
        let mark = total * step / 6;
        allow.send_replace(mark + AHEAD);
        growing.until_lines("all.ndjson", mark).await;
        if step % 2 == 0 {
            node.kill().await;
        } else {
            all.child.kill().await.expect("it runs");
        }
        // Nothing is published or received beyond this, and so it was killed in the middle.
        let received = all.lines();
        assert!(
            (mark..=mark + AHEAD).contains(&received) && mark + AHEAD < total,
            "{received}"
        );
        if step % 2 == 0 {
            node.restart().await;
        } else {
            all.crash().await;
            some.crash().await;
        }
    }
    allow.send_replace(total);
    let published = publisher.await.expect("fed");
    let told_first = told(&published);
    assert!(published.status.success(), "{told_first}");
    assert!(
        told_first.contains("broke"),
        "the server's end was noticed: {told_first}"
    );
    assert!(told_first.contains(&format!("{total} acknowledged, ")), "{told_first}");
    assert!(told_first.ends_with(" of them repeated; 0 refused\n"), "{told_first}");
    for reader in [&all, &some] {
        let due = reader.due(&records).values().map(Vec::len).sum();
        growing.until_lines(reader.name, due).await;
        assert_eq!(reader.received(), reader.due(&records), "{}", reader.name);
    }

    // Again, as a whole: nothing is delivered. What is published afterwards is the next that arrives.
    let (allow, allowed) = watch::channel(total);
    let again = feed(publish(&node).spawn().expect("the program starts"), lines, allowed).await;
    let expected = format!("{total} acknowledged, {total} of them repeated; 0 refused\n");
    assert_eq!((again.status.code(), told(&again)), (Some(0), expected));
    let sentinels: Vec<_> = some
        .nets
        .iter()
        .map(|net| Record {
            net: net.clone(),
            line: serde_json::json!({"properties": {"net": net}, "id": format!("sentinel of {net}")}).to_string(),
        })
        .collect();
    allow.send_replace(sentinels.len());
    let sentinel_lines = sentinels.iter().map(|record| record.line.clone()).collect();
    let last = feed(
        publish(&node).spawn().expect("the program starts"),
        sentinel_lines,
        allow.subscribe(),
    )
    .await;
    assert!(last.status.success(), "{}", told(&last));
    let records: Vec<_> = records.into_iter().chain(sentinels).collect();
    for reader in [&all, &some] {
        let due: usize = reader.due(&records).values().map(Vec::len).sum();
        let lines = growing.until_lines(reader.name, due).await;
        assert_eq!(lines, due, "{}", reader.name);
        assert_eq!(reader.received(), reader.due(&records), "{}", reader.name);
    }
}
