//! Dense tables with reusable slots. Indexes are made here and never taken from the wire.

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;

/// Values in numbered slots; the number of a freed slot is given out again, last freed first, so that a busy table
/// stays in cache.
pub(crate) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = Some(value);
            index
        } else {
            self.slots.push(Some(value));
            (self.slots.len() - 1) as u32
        }
    }

    pub(crate) fn remove(&mut self, index: u32) -> T {
        let value = self.slots[index as usize].take();
        self.free.push(index);
        if self.free.len() == self.slots.len() && self.slots.capacity() > 4096 {
            // A burst is over: what it needed is given back.
            self.slots = Vec::new();
            self.free = Vec::new();
        }
        value.expect("only slots that were given out are freed, once")
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn indexes(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.is_some()).map(|(index, _)| index as u32)
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        self.slots[index as usize].as_ref().expect("an index of the core's own names a filled slot")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.slots[index as usize].as_mut().expect("an index of the core's own names a filled slot")
    }
}

/// A place in a ring.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) prev: u32,
    pub(crate) next: u32,
}

impl Place {
    pub(crate) const OUT: Place = Place { prev: NONE, next: NONE };
}

/// Where the places of a ring's members are kept.
pub(crate) trait Places {
    fn place(&mut self, member: u32) -> &mut Place;
}

/// Adds `member` behind the last one of the ring at `head`.
pub(crate) fn ring_push(places: &mut impl Places, head: &mut u32, member: u32) {
    if *head == NONE {
        *places.place(member) = Place { prev: member, next: member };
        *head = member;
    } else {
        let last = places.place(*head).prev;
        *places.place(member) = Place { prev: last, next: *head };
        places.place(last).next = member;
        places.place(*head).prev = member;
    }
}

/// Takes `member` out of the ring at `head`.
pub(crate) fn ring_remove(places: &mut impl Places, head: &mut u32, member: u32) {
    let Place { prev, next } = *places.place(member);
    *places.place(member) = Place::OUT;
    if next == member {
        *head = NONE;
    } else {
        places.place(prev).next = next;
        places.place(next).prev = prev;
        if *head == member {
            *head = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nodes(Vec<Place>);
    impl Places for Nodes {
        fn place(&mut self, member: u32) -> &mut Place {
            &mut self.0[member as usize]
        }
    }

    #[test]
    fn a_ring_keeps_order_and_loses_any_member() {
        let mut nodes = Nodes(vec![Place::OUT; 4]);
        let mut head = NONE;
        for member in 0..4 {
            ring_push(&mut nodes, &mut head, member);
        }
        ring_remove(&mut nodes, &mut head, 2);
        ring_remove(&mut nodes, &mut head, 0);
        assert_eq!((head, nodes.0[1].next, nodes.0[3].next), (1, 3, 1));
        ring_remove(&mut nodes, &mut head, 1);
        ring_remove(&mut nodes, &mut head, 3);
        assert_eq!(head, NONE);
    }

    #[test]
    fn freed_slots_are_used_again() {
        let mut slab = Slab::new();
        let a = slab.insert('a');
        assert_eq!(slab.remove(a), 'a');
        assert_eq!(slab.insert('b'), a);
        assert_eq!((slab[a], slab.len(), slab.get(7)), ('b', 1, None));
    }
}
