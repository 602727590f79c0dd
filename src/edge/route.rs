//! Which edge of the cluster has which slot, and what that means for one request.
//!
//! Nothing depends on it for being right: every edge serves every stream. It makes a cluster cheap, since an edge hears only the slots
//! that its streams follow.

use std::sync::Arc;

use http::{HeaderValue, Uri};
use serde::Serialize;
use tokio::sync::watch;

use crate::model::{Layout, Slot, Topic, UnixMillis};

/// For how long after it was redirected a request is served wherever it is, in seconds. Nodes that see the cluster differently for a
/// moment do not send it to and fro; and a client that kept the address it was redirected to is redirected again when it comes back later.
const SETTLED: u64 = 10;

/// The owner of each slot, as this node sees the cluster now. Made once for all workers whenever that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    layout: Layout,
    edges: Vec<EdgeAddress>,
    /// By slot, the place among the edges.
    owners: Vec<Option<u16>>,
    me: String,
    sight: Sight,
}

/// How well this node sees the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It hears nobody, and holds on to what it saw last: nobody is sent anywhere.
    Lost,
    /// It hears the others, but perhaps not all of them yet: streams that are asked for are sent to their owner, those that are open stay.
    Young,
    /// It has heard them for long enough to have heard all: open streams are moved to their owner too.
    Clear,
}

/// An edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeAddress {
    /// Its name.
    pub node: String,
    /// Where clients reach its streams; none if it is where they are asking already.
    pub url: Option<String>,
}

impl Routes {
    /// The routes among these edges, of which `me` is this one.
    ///
    /// `owner` gives the place of a slot's owner in `edges`.
    #[must_use]
    pub fn new(
        layout: Layout,
        me: impl Into<String>,
        edges: Vec<EdgeAddress>,
        owner: impl Fn(Slot) -> Option<usize>,
        sight: Sight,
    ) -> Self {
        let owner_of = |slot| {
            let place = owner(Slot(slot)).filter(|place| *place < edges.len())?;
            u16::try_from(place).ok()
        };
        let owners = (0..layout.slots()).map(owner_of).collect();
        Self {
            layout,
            edges,
            owners,
            me: me.into(),
            sight,
        }
    }

    /// The routes of the only edge there is.
    #[must_use]
    pub fn alone(layout: Layout, me: impl Into<String>, url: Option<String>) -> Self {
        let me = me.into();
        let edges = vec![EdgeAddress { node: me.clone(), url }];
        Self::new(layout, me, edges, |_| Some(0), Sight::Clear)
    }

    /// The same, for an edge that is never to hear of others.
    #[must_use]
    pub fn forever(self) -> watch::Receiver<Arc<Self>> {
        watch::channel(Arc::new(self)).1
    }

    /// The slot that decides where a stream belongs: its user's inbox', or else its first topic's.
    pub(super) fn slot(&self, topic: &Topic) -> Slot {
        Slot(self.layout.slot(topic.as_str()))
    }

    /// The owner of a slot.
    fn owner(&self, slot: Slot) -> Option<&EdgeAddress> {
        let place = *self.owners.get(slot.0 as usize)?;
        self.edges.get(usize::from(place?))
    }

    /// The owner of a slot, if it is another edge that streams can be sent to.
    fn elsewhere(&self, slot: Slot) -> Option<&EdgeAddress> {
        let owner = self.owner(slot)?;
        (owner.node != self.me && owner.url.is_some()).then_some(owner)
    }

    /// Whether open streams of a slot are to be moved to another edge.
    pub(super) fn is_misplaced(&self, slot: Slot) -> bool {
        self.sight == Sight::Clear && self.elsewhere(slot).is_some()
    }

    /// What `GET /v1/route` answers; none while nobody is known to own the slot.
    pub(super) fn answer(&self, slot: Slot) -> Option<Vec<u8>> {
        /// The route is what a gateway hashes on.
        #[derive(Serialize)]
        struct Answer<'a> {
            slot: u32,
            route: String,
            node: &'a str,
            url: Option<&'a str>,
        }
        let owner = self.owner(slot)?;
        let answer = Answer {
            slot: slot.0,
            route: slot.0.to_string(),
            node: &owner.node,
            url: owner.url.as_deref(),
        };
        serde_json::to_vec(&answer).ok()
    }

    /// Where a request for a stream of this slot is to go instead; none if it is right here, or was redirected just now.
    pub(super) fn redirect(
        &self,
        slot: Slot,
        uri: &Uri,
        redirected: Option<u64>,
        now: UnixMillis,
    ) -> Option<HeaderValue> {
        let now = now.0 / 1_000;
        if self.sight == Sight::Lost || redirected.is_some_and(|then| then.abs_diff(now) <= SETTLED) {
            return None;
        }
        let url = self.elsewhere(slot)?.url.as_ref()?;
        let mut location = format!("{}{}?", url.trim_end_matches('/'), uri.path());
        let query = uri.query().unwrap_or_default();
        for part in query.split('&').filter(|part| !part.starts_with("redirected=")) {
            location.push_str(part);
            location.push('&');
        }
        location.push_str(&format!("redirected={now}"));
        HeaderValue::try_from(location).ok()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two edges that share four slots in turn; this is the first.
    pub(in crate::edge) fn two(sight: Sight) -> Routes {
        let layout = Layout::new(4, 1).expect("valid");
        let edges = ["edge-0", "edge-1"].map(|node| EdgeAddress {
            node: node.to_owned(),
            url: Some(format!("http://{node}.example:8080/")),
        });
        Routes::new(layout, "edge-0", edges.into(), |slot| Some(slot.0 as usize % 2), sight)
    }

    #[test]
    fn a_route_names_the_owner() {
        let said = |routes: &Routes, slot| String::from_utf8(routes.answer(Slot(slot)).expect("owned")).expect("text");
        assert_eq!(
            said(&two(Sight::Young), 3),
            r#"{"slot":3,"route":"3","node":"edge-1","url":"http://edge-1.example:8080/"}"#
        );
        let alone = Routes::alone(Layout::EMBEDDED, "me", None);
        assert_eq!(said(&alone, 0), r#"{"slot":0,"route":"0","node":"me","url":null}"#);
        assert!(!alone.is_misplaced(Slot(0)));
        let nobody = Routes::new(Layout::EMBEDDED, "me", Vec::new(), |_| Some(0), Sight::Clear);
        assert_eq!((nobody.answer(Slot(0)), nobody.answer(Slot(7))), (None, None));
    }

    #[test]
    fn only_what_belongs_to_another_is_sent_there_once() {
        const NOW: UnixMillis = UnixMillis(1_000_000);
        let uri: Uri = "/v1/events?user=a%40b&redirected=5&redirect=1".parse().expect("a URI");
        let redirect = |routes: &Routes, slot, redirected| {
            let location = routes.redirect(Slot(slot), &uri, redirected, NOW)?;
            Some(location.to_str().expect("text").to_owned())
        };
        let there = "http://edge-1.example:8080/v1/events?user=a%40b&redirect=1&redirected=1000".to_owned();
        for sight in [Sight::Lost, Sight::Young, Sight::Clear] {
            assert_eq!(two(sight).is_misplaced(Slot(1)), sight == Sight::Clear);
            assert!(!two(sight).is_misplaced(Slot(0)));
        }
        assert_eq!(redirect(&two(Sight::Young), 0, None), None);
        assert_eq!(redirect(&two(Sight::Young), 1, None), Some(there.clone()));
        assert_eq!(redirect(&two(Sight::Lost), 1, None), None);
        for (then, is_redirected) in [(1_000, false), (990, false), (989, true), (1_010, false), (5, true)] {
            assert_eq!(
                redirect(&two(Sight::Young), 1, Some(then)),
                is_redirected.then(|| there.clone()),
                "{then}"
            );
        }
    }
}
