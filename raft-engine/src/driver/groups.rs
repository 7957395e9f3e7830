//! All groups of a server: to which of them something happened, and when each wants to be looked at although nothing did.
//!
//! A turn costs what happened in it, however many groups there are. Whoever changes a group takes it by
//! [`Groups::get_mut`], and thereby says that it is to be looked at; a turn looks at these, at those whose time has come,
//! and at no other.

use std::collections::{BTreeMap, BTreeSet};

use super::group::Group;
use crate::types::{GroupId, Time};

/// A group, and what is noted of it here.
#[derive(Debug)]
struct Slot {
    group: Group,
    /// It is to be looked at: among [`Groups::touched`], or being looked at.
    is_touched: bool,
    /// What the host knows of it may be out of date: among [`Groups::changed`].
    is_changed: bool,
    /// Where it stands among the timers; [`Time::NEVER`]: nowhere.
    timer: Time,
}

/// All groups of a server.
#[derive(Debug, Default)]
pub(super) struct Groups {
    slots: BTreeMap<GroupId, Slot>,
    touched: Vec<GroupId>,
    changed: Vec<GroupId>,
    /// One a group at most, never later than its deadline. Earlier it may be: a deadline that moves away, as that of a
    /// follower does with every heartbeat, costs nothing until the timer is the first of all.
    timers: BTreeSet<(Time, GroupId)>,
}

impl Groups {
    pub(super) fn get(&self, id: &GroupId) -> Option<&Group> {
        self.slots.get(id).map(|slot| &slot.group)
    }

    /// The group, to be changed: it will be looked at when the turn ends.
    pub(super) fn get_mut(&mut self, id: &GroupId) -> Option<&mut Group> {
        let slot = self.slots.get_mut(id)?;
        if !slot.is_touched {
            slot.is_touched = true;
            self.touched.push(*id);
        }
        if !slot.is_changed {
            slot.is_changed = true;
            self.changed.push(*id);
        }
        Some(&mut slot.group)
    }

    /// The group, to be changed in a way that nobody need look at.
    pub(super) fn get_aside(&mut self, id: &GroupId) -> Option<&mut Group> {
        self.slots.get_mut(id).map(|slot| &mut slot.group)
    }

    /// A group to which nothing else has happened in this turn, to be changed in a way that nobody need look at but for
    /// its deadline: [`Groups::keep_time`] must follow.
    pub(super) fn get_quiet(&mut self, id: &GroupId) -> Option<&mut Group> {
        self.slots.get_mut(id).filter(|slot| !slot.is_touched).map(|slot| &mut slot.group)
    }

    pub(super) fn contains_key(&self, id: &GroupId) -> bool {
        self.slots.contains_key(id)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Group> + '_ {
        self.slots.values().map(|slot| &slot.group)
    }

    /// All of them, in order. What walks all groups is for what concerns them all: a peer that was met, the end.
    pub(super) fn ids(&self) -> Vec<GroupId> {
        self.slots.keys().copied().collect()
    }

    pub(super) fn insert(&mut self, id: GroupId, group: Group) {
        let slot = Slot { group, is_touched: false, is_changed: false, timer: Time::NEVER };
        let before = self.slots.insert(id, slot);
        assert!(before.is_none(), "group {id} was there already");
        self.get_mut(&id);
    }

    /// It is to be looked at, though it was not changed.
    pub(super) fn touch(&mut self, id: GroupId) {
        self.get_mut(&id);
    }

    /// Touches those whose deadline has come.
    pub(super) fn touch_due(&mut self, now: Time) {
        while let Some(&(at, id)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            slot.timer = Time::NEVER;
            if slot.group.deadline() <= now {
                self.touch(id);
            } else {
                self.keep_time(id);
            }
        }
    }

    /// What is to be looked at now, in order. They stay touched until [`Groups::looked_at`].
    pub(super) fn take_touched(&mut self) -> Vec<GroupId> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched
    }

    /// These were looked at, and their deadlines are what they are now.
    pub(super) fn looked_at(&mut self, mut ids: Vec<GroupId>) {
        for &id in &ids {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.is_touched = false;
            }
            self.keep_time(id);
        }
        if self.touched.is_empty() {
            // The same memory again.
            ids.clear();
            self.touched = ids;
        }
    }

    /// Sees that a group's timer is no later than its deadline.
    pub(super) fn keep_time(&mut self, id: GroupId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let deadline = slot.group.deadline();
        if deadline < slot.timer {
            self.timers.remove(&(slot.timer, id));
            self.timers.insert((deadline, id));
            slot.timer = deadline;
        }
    }

    /// Sets timers anew whose deadline has moved away, as they become the first, so that none of them wakes anybody for
    /// nothing.
    pub(super) fn settle_timers(&mut self) {
        while let Some(&(at, id)) = self.timers.first() {
            let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.group.deadline() > at) else { return };
            slot.timer = Time::NEVER;
            self.timers.remove(&(at, id));
            self.keep_time(id);
        }
    }

    /// When a group must be looked at next: at once, where something happened since the last look.
    pub(super) fn deadline(&self) -> Time {
        if self.touched.is_empty() { self.timers.first().map_or(Time::NEVER, |&(at, _)| at) } else { Time(0) }
    }

    /// The groups of which a host may be shown something else than it was, since the last call.
    pub(super) fn take_changed(&mut self) -> Vec<GroupId> {
        let changed = std::mem::take(&mut self.changed);
        for id in &changed {
            if let Some(slot) = self.slots.get_mut(id) {
                slot.is_changed = false;
            }
        }
        changed
    }

    /// How many timers there are.
    #[cfg(test)]
    pub(super) fn timers(&self) -> usize {
        self.timers.len()
    }
}
