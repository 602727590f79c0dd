//! What the random worlds reach too seldom.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use super::*;
use crate::{
    bus::Announcement,
    hub::{Delivery, Flow, Offer},
    log::{Heads, Page, Replay},
    model::Event,
};

/// Takes everything, and notes the payloads and the reasons of gaps.
#[derive(Clone, Default)]
struct Recorder(Rc<RefCell<Vec<String>>>);

impl Outlet for Recorder {
    fn offer(&self, delivery: &Delivery<'_>, _: Flow) -> Offer {
        match delivery {
            Delivery::Event { event, .. } => self.0.borrow_mut().push(event.data.to_string()),
            Delivery::Gap { reason, .. } => self.0.borrow_mut().push(reason.as_str().to_owned()),
            Delivery::Level { .. } => {}
        }
        Offer::Taken
    }

    fn flush(&self) {}
}

const EPOCH: Epoch = Epoch(1);

fn event(topic: &str, seq: u64) -> Arc<Event> {
    let name = Topic::parse(topic).expect("valid");
    Arc::new(Event::new(
        name,
        None,
        format!("{topic}{seq}").into(),
        UnixMillis(0),
        Some(Seq(seq)),
    ))
}

fn announcement(topic: &str, prev: u64, seq: u64) -> Notice {
    let (shard, slot, event) = (Shard(0), Slot(0), event(topic, seq));
    Notice::Announcement(Announcement {
        shard,
        epoch: EPOCH,
        slot,
        prev: Seq(prev),
        seq: Seq(seq),
        event,
    })
}

fn heads(last: u64) -> Answer {
    let slots = Arc::new(HashMap::from([(Slot(0), Seq(last))]));
    Answer::Heads(Heads {
        shard: Shard(0),
        epoch: EPOCH,
        last: Seq(last),
        floor: Seq(1),
        slots,
    })
}

fn page(events: Vec<Arc<Event>>, up_to: u64) -> Answer {
    Answer::Replay(Replay::Page(Page {
        epoch: EPOCH,
        events,
        up_to: Seq(up_to),
    }))
}

fn attach(hub: &mut Hub, topic: &str) -> (FollowerId, Recorder) {
    let recorder = Recorder::default();
    let topics = vec![Topic::parse(topic).expect("valid")];
    let id = hub.attach(
        Follow {
            topics,
            start: Start::Now,
        },
        Rc::new(recorder.clone()),
    );
    (id, recorder)
}

/// The one question that the hub has put since it was last asked.
fn asked(hub: &mut Hub) -> Ticket {
    let effects = hub.take_effects();
    let mut asked = effects.iter().filter_map(|effect| match effect {
        Effect::Ask { ticket, .. } => Some(*ticket),
        _ => None,
    });
    let ticket = asked.next().expect("a question");
    assert_eq!(asked.next(), None, "{effects:?}");
    ticket
}

#[test]
fn the_answer_to_a_fill_that_was_given_up_does_not_end_the_next() {
    let mut hub = Hub::new(Layout::EMBEDDED, HubSettings::default());
    let (first, _) = attach(&mut hub, "a");
    let ticket = asked(&mut hub);
    hub.answer(ticket, &heads(10));
    hub.notice(&announcement("a", 12, 13));
    let given_up = asked(&mut hub);
    hub.detach(first);
    hub.sweep();
    hub.sweep();

    let (_, second) = attach(&mut hub, "b");
    let ticket = asked(&mut hub);
    hub.answer(ticket, &heads(13));
    hub.notice(&announcement("a", 14, 15));
    let fill = asked(&mut hub);
    hub.answer(
        given_up,
        &page(vec![event("a", 12), event("a", 13), event("a", 15)], 15),
    );
    assert!(second.0.borrow().is_empty());
    hub.answer(fill, &page(vec![event("b", 14)], 15));
    hub.notice(&announcement("b", 15, 16));
    assert_eq!(*second.0.borrow(), ["b14", "b16"]);
}

#[test]
fn too_many_topics_to_fill_at_once_are_read_by_each_follower() {
    let settings = HubSettings {
        fill_topics: 1,
        ..HubSettings::default()
    };
    let mut hub = Hub::new(Layout::EMBEDDED, settings);
    let (_, a) = attach(&mut hub, "a");
    let ticket = asked(&mut hub);
    hub.answer(ticket, &heads(10));
    let (_, b) = attach(&mut hub, "b");
    hub.notice(&announcement("a", 12, 13));
    let questions: Vec<_> = hub
        .take_effects()
        .into_iter()
        .map(|effect| match effect {
            Effect::Ask {
                ticket,
                question: Question::Replay(request),
                ..
            } => (ticket, request.topics),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(questions.len(), 2);
    for (ticket, topics) in questions {
        let [(topic, Seq(10))] = &topics[..] else {
            panic!("{topics:?}")
        };
        hub.answer(ticket, &page(vec![event(topic.as_str(), 12)], 13));
    }
    hub.notice(&announcement("b", 13, 14));
    assert_eq!(
        (&*a.0.borrow(), &*b.0.borrow()),
        (&vec!["a12".to_owned()], &vec!["b12".to_owned(), "b14".to_owned()])
    );
}

#[test]
fn who_comes_while_a_slot_is_filled_begins_where_it_came() {
    let mut hub = Hub::new(Layout::EMBEDDED, HubSettings::default());
    let (_, a) = attach(&mut hub, "a");
    let ticket = asked(&mut hub);
    hub.answer(ticket, &heads(10));
    hub.notice(&announcement("a", 12, 13));
    let fill = asked(&mut hub);
    let (_, b) = attach(&mut hub, "b");
    // Published after both came. The fill reads only the topics of those who are live, and passes over it.
    hub.notice(&announcement("b", 13, 14));
    hub.answer(fill, &page(vec![event("a", 12), event("a", 13)], 14));
    let read = asked(&mut hub);
    hub.answer(read, &page(vec![event("b", 14)], 14));
    hub.notice(&announcement("b", 14, 15));
    assert_eq!(
        (&*a.0.borrow(), &*b.0.borrow()),
        (
            &vec!["a12".to_owned(), "a13".to_owned()],
            &vec!["b14".to_owned(), "b15".to_owned()]
        )
    );
}

#[test]
fn whoever_leaves_is_not_waited_for_by_the_log_or_kept() {
    let mut hub = Hub::new(Layout::EMBEDDED, HubSettings::default());
    let (waits, _) = attach(&mut hub, "a");
    let heads_asked = asked(&mut hub);
    let reads = hub.attach(
        Follow {
            topics: vec![Topic::parse("a").expect("valid")],
            start: Start::Earliest,
        },
        Rc::new(Recorder::default()),
    );
    let located = asked(&mut hub);
    hub.detach(waits);
    hub.detach(reads);
    assert_eq!(hub.take_effects(), [Effect::Forget(located)]);
    hub.sweep();
    assert!(hub.waiting.values().all(Vec::is_empty));
    assert_eq!(hub.questions.keys().collect::<Vec<_>>(), [&heads_asked]);
    hub.answer(located, &page(vec![event("a", 1)], 1));
    hub.answer(heads_asked, &heads(1));
    assert!(hub.questions.is_empty());
}

#[test]
fn a_cursor_of_another_layout_is_told_that_it_is_unknown() {
    for (text, is_ours) in [
        ("1-1.a", true),
        ("1-5_1.a", false),
        ("1-1.a-2_1.a", false),
        ("1-1.9.5_1", false),
    ] {
        let mut hub = Hub::new(Layout::EMBEDDED, HubSettings::default());
        let (_, _) = attach(&mut hub, "a");
        let ticket = asked(&mut hub);
        hub.answer(ticket, &heads(10));
        let recorder = Recorder::default();
        hub.attach(
            Follow {
                topics: vec![Topic::parse("a").expect("valid")],
                start: Start::After(Cursor::parse(text).expect("a cursor")),
            },
            Rc::new(recorder.clone()),
        );
        let told: &[String] = if is_ours { &[] } else { &["unknown".to_owned()] };
        assert_eq!(*recorder.0.borrow(), told, "{text}");
    }
}

#[test]
fn a_cursor_that_tells_of_none_of_the_shards_is_unknown() {
    let layout = Layout::new(1_024, 8).expect("valid");
    let shard_of = |topic: &str| layout.shard(layout.slot(topic));
    let other = (0..8).find(|shard| *shard != shard_of("a")).expect("one of eight");
    let cursor = |shards: &[u16]| {
        let mut cursor = Cursor::new();
        for shard in shards {
            cursor.set(Shard(*shard), crate::model::Position::at(EPOCH, Seq(3)));
        }
        cursor
    };
    for (cursor, is_known) in [
        (cursor(&[shard_of("a")]), true),
        (cursor(&[shard_of("a"), other]), true),
        (cursor(&[other]), false),
    ] {
        let mut hub = Hub::new(layout, HubSettings::default());
        let recorder = Recorder::default();
        let follow = Follow {
            topics: vec![Topic::parse("a").expect("valid")],
            start: Start::After(cursor.clone()),
        };
        let id = hub.attach(follow, Rc::new(recorder));
        let session = &hub.followers.get(id).expect("attached").session;
        let Session::CatchingUp(catch_up) = session else {
            panic!("{session:?}");
        };
        assert_eq!(catch_up.gap().is_none(), is_known, "{cursor}");
    }
}

/// Two slots, each of a shard of its own, and a topic in each.
fn two_shards() -> (Layout, [&'static str; 2]) {
    let layout = Layout::new(2, 2).expect("valid");
    let of = |slot| {
        let topics = ["a", "b", "c", "d", "e", "f", "g", "h"];
        topics
            .into_iter()
            .find(|topic| layout.slot(topic) == slot)
            .expect("one of them")
    };
    (layout, [of(0), of(1)])
}

fn heads_of(shard: u16, last: u64) -> Answer {
    Answer::Heads(Heads {
        shard: Shard(shard),
        epoch: EPOCH,
        last: Seq(last),
        floor: Seq(1),
        slots: Arc::new(HashMap::from([(Slot(shard.into()), Seq(last))])),
    })
}

fn announced(shard: u16, topic: &str, prev: u64, seq: u64) -> Notice {
    Notice::Announcement(Announcement {
        shard: Shard(shard),
        epoch: EPOCH,
        slot: Slot(shard.into()),
        prev: Seq(prev),
        seq: Seq(seq),
        event: event(topic, seq),
    })
}

/// The questions that the hub has put since it was last asked, by shard.
fn questions(hub: &mut Hub) -> Vec<(Shard, Ticket, Question)> {
    let shard = |question: &Question| match question {
        Question::Heads(shard) | Question::Locate(shard, _) => *shard,
        Question::Replay(request) | Question::Fill(request) => request.shard,
    };
    let effects = hub.take_effects().into_iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Ask { ticket, question, .. } => Some((shard(&question), ticket, question)),
            _ => None,
        })
        .collect()
}

/// Answers a question from a log that has the events of its topic up to `last`.
fn answer_from(hub: &mut Hub, ticket: Ticket, question: &Question, last: u64) {
    let answer = match question {
        Question::Heads(shard) => heads_of(shard.0, last),
        Question::Replay(request) | Question::Fill(request) => {
            let (topic, Seq(after)) = &request.topics[0];
            let events = (after + 1..=last).map(|seq| event(topic.as_str(), seq));
            page(events.collect(), last)
        }
        Question::Locate(..) => panic!("{question:?}"),
    };
    hub.answer(ticket, &answer);
}

/// Answers whatever the hub asks, until it asks nothing more; but not of the shard that is away, whose questions are returned.
fn answer_all(hub: &mut Hub, last: [u64; 2], away: Option<Shard>) -> Vec<(Shard, Ticket, Question)> {
    let mut left = Vec::new();
    loop {
        let asked = questions(hub);
        if asked.is_empty() {
            return left;
        }
        for (shard, ticket, question) in asked {
            if away == Some(shard) {
                left.push((shard, ticket, question));
            } else {
                answer_from(hub, ticket, &question, last[usize::from(shard.0)]);
            }
        }
    }
}

fn fail(hub: &mut Hub, questions: Vec<(Shard, Ticket, Question)>) {
    for (_, ticket, _) in questions {
        hub.answer(ticket, &Answer::Failed(crate::log::ReadError::failed("away")));
    }
}

#[test]
fn a_shard_that_cannot_be_read_does_not_hold_up_the_others() {
    let (layout, [a, b]) = two_shards();
    let mut hub = Hub::new(layout, HubSettings::default());
    let recorder = Recorder::default();
    let follow = Follow {
        topics: [a, b].map(|topic| Topic::parse(topic).expect("valid")).into(),
        start: Start::After(Cursor::parse("1-1.4-1_1.4").expect("a cursor")),
    };
    hub.attach(follow, Rc::new(recorder.clone()));
    let mut expected = Vec::new();
    let mut away = answer_all(&mut hub, [6, 6], Some(Shard(0)));
    assert_eq!(*recorder.0.borrow(), expected, "it may be back at once");
    for round in 0..3 {
        fail(&mut hub, away);
        away = answer_all(&mut hub, [6, 6 + round], Some(Shard(0)));
        if round == 0 {
            expected.extend([5, 6].map(|seq| format!("{b}{seq}")));
        }
        assert_eq!(*recorder.0.borrow(), expected);
        // It hears what is new there as if it were live.
        hub.notice(&announced(1, b, 6 + round, 7 + round));
        expected.push(format!("{b}{}", 7 + round));
        assert_eq!(*recorder.0.borrow(), expected);
    }
    assert_eq!(
        away.len(),
        2,
        "one question for the heads, one of the follower's: {away:?}"
    );
    for (_, ticket, question) in away {
        answer_from(&mut hub, ticket, &question, 6);
    }
    assert!(answer_all(&mut hub, [6, 9], None).is_empty());
    hub.notice(&announced(0, a, 6, 7));
    hub.notice(&announced(1, b, 9, 10));
    expected.extend([format!("{a}5"), format!("{a}6"), format!("{a}7"), format!("{b}10")]);
    assert_eq!(*recorder.0.borrow(), expected);
}

#[test]
fn who_begins_now_begins_where_it_came_in_each_shard_that_is_there() {
    let (layout, [a, b]) = two_shards();
    let mut hub = Hub::new(layout, HubSettings::default());
    let recorder = Recorder::default();
    let follow = Follow {
        topics: [a, b].map(|topic| Topic::parse(topic).expect("valid")).into(),
        start: Start::Now,
    };
    hub.attach(follow, Rc::new(recorder.clone()));
    let away = answer_all(&mut hub, [6, 6], Some(Shard(0)));
    hub.notice(&announced(1, b, 6, 7));
    // No cursor could say yet where it begins in the other shard.
    assert!(recorder.0.borrow().is_empty());
    for (_, ticket, _) in away {
        hub.answer(ticket, &heads_of(0, 6));
    }
    assert!(answer_all(&mut hub, [6, 7], None).is_empty());
    assert_eq!(*recorder.0.borrow(), [format!("{b}7")]);
}

#[test]
fn who_is_ahead_of_the_log_is_not_level_until_the_log_knows_its_position() {
    for is_lost in [false, true] {
        let mut hub = Hub::new(Layout::EMBEDDED, HubSettings::default());
        let (_, _) = attach(&mut hub, "a");
        let ticket = asked(&mut hub);
        hub.answer(ticket, &heads(5));
        let recorder = Recorder::default();
        let mut cursor = Cursor::new();
        cursor.set(Shard(0), crate::model::Position::at(EPOCH, Seq(25)));
        hub.attach(
            Follow {
                topics: vec![Topic::parse("a").expect("valid")],
                start: Start::After(cursor),
            },
            Rc::new(recorder.clone()),
        );
        for attempt in 0..3 {
            let ticket = asked(&mut hub);
            assert_eq!(hub.questions[&ticket].attempt, attempt);
            hub.answer(ticket, &page(Vec::new(), 5));
        }
        let ticket = asked(&mut hub);
        if is_lost {
            let forked = Answer::Replay(Replay::Forked {
                epoch: EPOCH,
                last: Seq(5),
            });
            hub.answer(ticket, &forked);
            hub.notice(&announcement("a", 5, 6));
            assert_eq!(*recorder.0.borrow(), ["forked", "a6"]);
        } else {
            hub.answer(ticket, &page(Vec::new(), 25));
            assert!(hub.take_effects().is_empty());
            assert!(recorder.0.borrow().is_empty());
        }
    }
}

/// How much is held back, by how many outlets whatever; and the most that ever was.
#[derive(Clone, Default)]
struct Holder(Rc<[std::cell::Cell<usize>; 2]>, Rc<std::cell::Cell<usize>>);

impl Outlet for Holder {
    fn offer(&self, delivery: &Delivery<'_>, flow: Flow) -> Offer {
        if matches!(delivery, Delivery::Event { .. }) && flow == Flow::More {
            let Self(all, own) = self;
            own.set(own.get() + 1);
            all[0].set(all[0].get() + 1);
            all[1].set(all[1].get().max(all[0].get()));
        }
        Offer::Taken
    }

    fn flush(&self) {
        self.0[0].set(self.0[0].get() - self.1.take());
    }
}

#[test]
fn a_crowd_does_not_hold_back_everything_that_it_is_told() {
    const CROWD: usize = 10_000;
    let mut hub = Hub::new(Layout::EMBEDDED, HubSettings::default());
    let all = Holder::default();
    let follow = Follow {
        topics: vec![Topic::parse("a").expect("valid")],
        start: Start::Now,
    };
    let ids: Vec<FollowerId> = (0..CROWD)
        .map(|_| hub.attach(follow.clone(), Rc::new(Holder(Rc::clone(&all.0), Rc::default()))))
        .collect();
    let ticket = asked(&mut hub);
    hub.answer(ticket, &heads(0));
    assert!(
        ids.iter()
            .all(|&id| hub.followers.get(id).is_some_and(Follower::is_live))
    );
    let notices: Vec<Notice> = (0..64).map(|seq| announcement("a", seq, seq + 1)).collect();
    hub.notices(&notices);
    let [left, most] = [all.0[0].get(), all.0[1].get()];
    assert_eq!(left, 0);
    assert!((HELD..HELD + CROWD).contains(&most), "{most}");
}
