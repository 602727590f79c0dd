//! How an edge reads the log: it asks whoever holds the shard, as it sees them, one after the other or several at once, and passes on what counts.

use std::sync::Arc;

use rand::Rng as _;

use super::{Action, SECOND, World, ordinal, place, shards::shard_of};
use crate::{
    hub::{Answer, Question, Ticket},
    log::{HolderAnswer, HolderQuestion, ReadError, Weighing},
};

/// A question that is under way.
pub(super) struct Ask {
    edge: usize,
    life: u32,
    ticket: Ticket,
    question: Question,
    /// The ingest nodes to ask, in this order.
    holders: Vec<usize>,
    asked: usize,
    under_way: usize,
    weighing: Weighing,
}

impl World {
    /// An edge puts a question.
    pub(super) fn ask(&mut self, edge: usize, life: u32, ticket: Ticket, question: Question) {
        if self.edges[edge].node.life != life {
            return;
        }
        let shard = shard_of(&question);
        let holders = self.edges[edge].membership.view().holders(shard.0);
        let mut holders: Vec<_> = holders.iter().filter_map(|holder| place(&holder.member.node)).collect();
        if holders.is_empty() || self.chance(0.05) {
            return self.fail(edge, life, ticket);
        }
        if self.chance(0.3) || matches!(question, Question::Heads(_)) {
            // Heads are asked of each in its turn; and some have failed before.
            let by = self.rng.random_range(0..holders.len());
            holders.rotate_left(by);
        }
        let names = holders.iter().map(|node| Arc::from(format!("ingest-{node}"))).collect();
        let view = self.edges[edge].views.entry(shard).or_default();
        let weighing = Weighing::new(view, put(&question), names);
        let id = self.next_ask;
        self.next_ask += 1;
        let ask = Ask {
            edge,
            life,
            ticket,
            question,
            holders,
            asked: 0,
            under_way: 0,
            weighing,
        };
        self.asks.insert(id, ask);
        self.ask_next(id);
        if self.chance(0.2) {
            self.ask_next(id);
        }
        let now = self.schedule.now();
        self.schedule.at(now + 6 * SECOND, Action::GiveUp(id));
    }

    fn ask_next(&mut self, id: u64) {
        let Some(ask) = self.asks.get_mut(&id).filter(|ask| ask.asked < ask.holders.len()) else {
            return;
        };
        let holder = ask.asked;
        ask.asked += 1;
        ask.under_way += 1;
        self.after(200, Action::Asked(id, holder));
    }

    /// A question comes to a holder.
    pub(super) fn asked(&mut self, id: u64, holder: usize) {
        let Some(ask) = self.asks.get(&id) else { return };
        let (node, shard) = (ask.holders[holder], shard_of(&ask.question));
        let is_cut_off = self.edges[ask.edge].cut_from.contains(&node);
        let is_served = self.ingest[node].up && self.shards.is_open(shard, ordinal(node));
        let answer = if is_cut_off || !is_served {
            None
        } else {
            let answer = self.shards.held(shard, ordinal(node)).answer(&ask.question);
            Some(match answer {
                Answer::Heads(heads) => HolderAnswer::Heads(heads),
                Answer::Replay(replay) => HolderAnswer::Replay(replay),
                Answer::Located(located) => HolderAnswer::Located(located),
                Answer::Failed(_) => unreachable!("a journal does not fail"),
            })
        };
        let within = if is_cut_off { 3 * SECOND } else { 200 };
        self.after(within, Action::Told(id, holder, answer));
    }

    /// A holder has answered, or has not.
    pub(super) fn told(&mut self, id: u64, holder: usize, answer: Option<HolderAnswer>) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        ask.under_way -= 1;
        let Some(view) = self.edges[ask.edge].views.get_mut(&shard_of(&ask.question)) else {
            return;
        };
        let Some(answer) = answer else {
            ask.weighing.failed(view, holder, "cannot be reached");
            return self.go_on(id);
        };
        match ask.weighing.answered(view, holder, answer) {
            Some(answer) => self.answer(id, Ok(answer)),
            None => self.go_on(id),
        }
    }

    /// Asks the next, and lets what there is count if nobody else answers.
    fn go_on(&mut self, id: u64) {
        self.ask_next(id);
        if self.asks.get(&id).is_some_and(|ask| ask.under_way == 0) {
            self.give_up(id);
        } else {
            let now = self.schedule.now();
            self.schedule.at(now + SECOND, Action::Confirm(id));
        }
    }

    /// If there is an answer that counts when nobody knows better, nobody does.
    pub(super) fn confirm(&mut self, id: u64) {
        if self.asks.get(&id).is_some_and(|ask| ask.weighing.has_an_answer()) {
            self.give_up(id);
        }
    }

    pub(super) fn give_up(&mut self, id: u64) {
        let Some(ask) = self.asks.get(&id) else { return };
        let Some(view) = self.edges[ask.edge].views.get_mut(&shard_of(&ask.question)) else {
            return;
        };
        let answer = ask.weighing.clone().settle(view);
        self.answer(id, answer);
    }

    fn answer(&mut self, id: u64, answer: Result<HolderAnswer, ReadError>) {
        let Some(ask) = self.asks.remove(&id) else { return };
        let answer = match answer {
            Ok(HolderAnswer::Heads(heads)) => Answer::Heads(heads),
            Ok(HolderAnswer::Replay(replay)) => Answer::Replay(replay),
            Ok(HolderAnswer::Located(located)) => Answer::Located(located),
            Err(error) => Answer::Failed(error),
        };
        let now = self.schedule.now();
        self.schedule
            .at(now, Action::Answer(ask.edge, ask.life, ask.ticket, answer));
    }

    fn fail(&mut self, edge: usize, life: u32, ticket: Ticket) {
        let answer = Answer::Failed(ReadError::failed("a fault"));
        self.after(400, Action::Answer(edge, life, ticket, answer));
    }
}

fn put(question: &Question) -> HolderQuestion {
    match question {
        Question::Heads(shard) => HolderQuestion::Heads(*shard),
        Question::Locate(shard, time) => HolderQuestion::Locate(*shard, *time),
        Question::Replay(request) | Question::Fill(request) => HolderQuestion::Replay {
            request: Arc::new(request.clone()),
            live: matches!(question, Question::Fill(_)),
        },
    }
}
