//! The two queues between threads under loom, which runs every interleaving of a small program: nothing is lost, nothing
//! comes twice, nobody sleeps on.
//!
//! `submission.rs` and `work_queue.rs` are compiled here a second time, over loom's locks.

/// What `super::sync` is to the queues, with loom's locks. Timeouts never pass in a model.
mod sync {
    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard};
    use std::time::Duration;

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("no panic in a model")
    }

    pub(super) fn wait<'a, T>(
        condition: &Condvar,
        guard: MutexGuard<'a, T>,
        _timeout: Option<Duration>,
    ) -> MutexGuard<'a, T> {
        condition.wait(guard).expect("no panic in a model")
    }
}

#[allow(dead_code, clippy::duplicate_mod, reason = "the models use a part of it")]
#[path = "submission.rs"]
mod submission;
#[allow(dead_code, clippy::duplicate_mod, reason = "the models use a part of it")]
#[path = "work_queue.rs"]
mod work_queue;

use std::collections::VecDeque;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use self::submission::{Inbox, Rejection, Wake};
use self::work_queue::{Announce, Taken, WorkQueue};

/// Runs every interleaving with up to this many preemptions, which is where the errors are, and ends in seconds.
fn model(program: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(program);
}

/// Stands for the loop's poll: a wake that comes first is not lost.
#[derive(Clone, Default)]
struct Poll(Arc<(Mutex<usize>, Condvar)>);

impl Poll {
    fn sleep(&self) {
        let mut wakes = self.0.0.lock().unwrap();
        while *wakes == 0 {
            wakes = self.0.1.wait(wakes).unwrap();
        }
        *wakes = 0;
    }
}

impl Wake for Poll {
    fn wake(&self) {
        *self.0.0.lock().unwrap() += 1;
        self.0.1.notify_one();
    }
}

/// A loop that takes until it has `count` things; it hangs, and loom says so, if a wake is lost.
fn take_all(inbox: &Inbox<u32, Poll>, poll: &Poll, count: usize) -> Vec<u32> {
    let mut all = Vec::new();
    while all.len() < count {
        if inbox.may_sleep() {
            poll.sleep();
        }
        inbox.awake();
        let mut taken = Vec::new();
        inbox.take(&mut taken, 0);
        all.extend(taken.into_iter().map(|(item, _)| item));
    }
    all
}

#[test]
fn a_submission_is_taken_once_and_wakes_the_loop() {
    model(|| {
        let poll = Poll::default();
        let inbox = Arc::new(Inbox::new(poll.clone(), 100));
        let host = {
            let inbox = inbox.clone();
            thread::spawn(move || {
                inbox.submit(1, 10).unwrap();
                inbox.submit(2, 10).unwrap();
            })
        };
        let disk = {
            let inbox = inbox.clone();
            thread::spawn(move || inbox.report(10))
        };
        let mut taken = take_all(&inbox, &poll, 3);
        let place = |item| taken.iter().position(|taken| *taken == item).unwrap();
        assert!(place(1) < place(2), "one thread's submissions stay in order");
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 10]);
        host.join().unwrap();
        disk.join().unwrap();
    });
}

#[test]
fn a_quiet_report_is_seen_with_whatever_comes_next_or_with_a_nudge() {
    model(|| {
        let poll = Poll::default();
        let inbox = Arc::new(Inbox::new(poll.clone(), 100));
        let dispatch = {
            let inbox = inbox.clone();
            thread::spawn(move || {
                inbox.report_quietly(1);
                inbox.nudge();
            })
        };
        assert_eq!(take_all(&inbox, &poll, 1), [1]);
        dispatch.join().unwrap();
    });
}

#[test]
fn what_is_accepted_at_a_close_is_taken_and_what_is_refused_is_not() {
    model(|| {
        let poll = Poll::default();
        let inbox = Arc::new(Inbox::new(poll.clone(), 100));
        let host = {
            let inbox = inbox.clone();
            thread::spawn(move || inbox.submit(1, 10))
        };
        let closer = {
            let inbox = inbox.clone();
            thread::spawn(move || inbox.close(99))
        };
        let mut taken = Vec::new();
        while taken.last() != Some(&99) {
            taken.append(&mut take_all(&inbox, &poll, 1));
        }
        taken.append(&mut inbox.end(Rejection::Closed));
        match host.join().unwrap() {
            Ok(()) => assert_eq!(taken, [1, 99]),
            Err(rejection) => assert_eq!((rejection, taken), (Rejection::Closed, vec![99])),
        }
        closer.join().unwrap();
        inbox.report(5);
        assert!(inbox.end(Rejection::Closed).is_empty(), "what comes after the end is dropped");
    });
}

#[test]
fn a_full_queue_refuses_and_takes_again_when_it_was_drained() {
    model(|| {
        let inbox = Inbox::new(Poll::default(), 100);
        inbox.submit(1, 60).unwrap();
        assert_eq!(inbox.submit(2, 41), Err(Rejection::Full));
        inbox.submit(3, 40).unwrap();
        inbox.report(4);
        let mut taken = Vec::new();
        inbox.take(&mut taken, 0);
        assert_eq!(taken, [(1, 60), (3, 40), (4, 0)]);
        assert_eq!(inbox.submit(5, 1), Err(Rejection::Full), "taken is not handed on");
        inbox.take(&mut Vec::new(), 60);
        inbox.submit(5, 60).unwrap();
    });
}

/// Counts announcements as a host's descriptor shows them.
#[derive(Clone, Default)]
struct Descriptor(Arc<Mutex<bool>>);

impl Announce for Descriptor {
    fn announce(&self, has_work: bool) {
        *self.0.lock().unwrap() = has_work;
    }
}

type Queue = WorkQueue<u32, Vec<u32>, Descriptor>;

/// Dispatches until the queue closes; what was done is in the dispatcher.
fn work(queue: &Queue) {
    let mut taken = VecDeque::new();
    while let Taken::Work(mut done) = queue.take(usize::MAX, None, &mut taken) {
        done.extend(taken.drain(..));
        queue.give_back(done);
    }
}

#[test]
fn work_is_done_once_in_order_by_whoever_holds_the_dispatcher() {
    model(|| {
        let queue = Arc::new(Queue::new(Vec::new(), Descriptor::default()));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let queue = queue.clone();
                thread::spawn(move || work(&queue))
            })
            .collect();
        queue.push([1]);
        queue.push([2, 3]);
        queue.close();
        let (mut done, left) = queue.take_last();
        done.extend(left);
        assert_eq!(done, [1, 2, 3]);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn a_worker_that_sleeps_is_woken() {
    model(|| {
        let queue = Arc::new(Queue::new(Vec::new(), Descriptor::default()));
        let worker = {
            let queue = queue.clone();
            thread::spawn(move || {
                let mut all = Vec::new();
                while all.len() < 2 {
                    let mut taken = VecDeque::new();
                    let Taken::Work(done) = queue.take(1, None, &mut taken) else { panic!("nobody closed") };
                    all.extend(taken);
                    queue.give_back(done);
                }
                all
            })
        };
        queue.push([1]);
        queue.push([2]);
        assert_eq!(worker.join().unwrap(), [1, 2]);
    });
}

#[test]
fn a_descriptor_shows_work_whenever_nobody_is_at_it() {
    model(|| {
        let descriptor = Descriptor::default();
        let queue = Arc::new(Queue::new(Vec::new(), descriptor.clone()));
        let pusher = {
            let queue = queue.clone();
            thread::spawn(move || queue.push([1, 2]))
        };
        // A host that takes one at a time, without waiting.
        let mut taken = VecDeque::new();
        if let Taken::Work(done) = queue.take(1, Some(std::time::Duration::ZERO), &mut taken) {
            queue.give_back(done);
        }
        pusher.join().unwrap();
        assert!(*descriptor.0.lock().unwrap(), "one or two are left");
        while taken.len() < 2 {
            let Taken::Work(done) = queue.take(1, Some(std::time::Duration::ZERO), &mut taken) else {
                panic!("there is work and nobody at it")
            };
            queue.give_back(done);
        }
        assert_eq!(taken, [1, 2]);
        assert!(!*descriptor.0.lock().unwrap());
    });
}
