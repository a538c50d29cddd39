//! The requests that wait for a place, first come, first served.

use std::collections::VecDeque;
use std::task::Waker;

/// Who waits, in the order of their coming.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    next: u64,
    waiting: VecDeque<(u64, Waker)>,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Joins at the end; the ticket.
    pub fn join(&mut self, waker: Waker) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.waiting.push_back((ticket, waker));
        ticket
    }

    /// Whether it is this one's turn.
    pub fn is_first(&self, ticket: u64) -> bool {
        self.waiting.front().is_some_and(|(first, _)| *first == ticket)
    }

    /// It goes on waiting.
    pub fn wait(&mut self, ticket: u64, waker: &Waker) {
        if let Ok(at) = self.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket)
            && let Some((_, own)) = self.waiting.get_mut(at)
        {
            own.clone_from(waker);
        }
    }

    /// Leaves, with a place or without.
    pub fn leave(&mut self, ticket: u64) {
        if let Ok(at) = self.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket) {
            self.waiting.remove(at);
        }
    }

    /// Whom to wake: the one whose turn it is.
    pub fn first(&self) -> Option<Waker> {
        self.waiting.front().map(|(_, waker)| waker.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_first_come_first_served_whoever_leaves() {
        let mut queue = Queue::default();
        let tickets: Vec<_> = (0..4).map(|_| queue.join(Waker::noop().clone())).collect();
        queue.leave(tickets[1]);
        assert!(queue.is_first(tickets[0]) && queue.len() == 3);
        queue.leave(tickets[0]);
        assert!(queue.is_first(tickets[2]));
        queue.leave(tickets[0]);
        queue.leave(tickets[2]);
        queue.leave(tickets[3]);
        assert!(queue.first().is_none());
    }
}
