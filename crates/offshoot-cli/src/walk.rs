//! The walk: connecting a whole tree of hops, side by side, each shared prefix once.
//!
//! This module owns the plan (which hops, in which order) and the pool of threads that carries it out. It must not
//! know how a hop is connected or what is done with a context: both are given. At most *fanout* hops are connected or
//! visited at once. What lies below a hop comes before what stands beside it, in the order the user wrote, so targets
//! are worked on roughly from first to last and few contexts are open for nothing.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use crate::hinted::no_thread;

/// A tree of hops. Nodes are numbered; a node's number is greater than its parent's.
#[derive(Debug)]
pub(crate) struct Plan<H> {
    pub(crate) nodes: Vec<PlanNode<H>>,
    roots: Vec<usize>,
}

/// One hop of a plan.
#[derive(Debug)]
pub(crate) struct PlanNode<H> {
    pub(crate) hop: H,
    pub(crate) parent: Option<usize>,
    pub(crate) children: Vec<usize>,
    /// Which target ends here, if any.
    pub(crate) target: Option<usize>,
}

impl<H: Clone + Eq + Hash> Plan<H> {
    /// The tree of these paths; path *n* is target *n*. Of equal paths only the first is a target.
    pub(crate) fn new(paths: impl IntoIterator<Item = Vec<H>>) -> Plan<H> {
        let mut plan = Plan { nodes: Vec::new(), roots: Vec::new() };
        let mut known: HashMap<(Option<usize>, H), usize> = HashMap::new();
        for (target, path) in paths.into_iter().enumerate() {
            let mut parent = None;
            for hop in path {
                let number = *known.entry((parent, hop.clone())).or_insert_with(|| {
                    let number = plan.nodes.len();
                    plan.nodes.push(PlanNode { hop, parent, children: Vec::new(), target: None });
                    match parent {
                        Some(parent) => plan.nodes[parent].children.push(number),
                        None => plan.roots.push(number),
                    }
                    number
                });
                parent = Some(number);
            }
            if let Some(end) = parent {
                plan.nodes[end].target.get_or_insert(target);
            }
        }
        plan
    }
}

impl<H> Plan<H> {
    /// The targets at and below a node, in order.
    pub(crate) fn targets_below(&self, node: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            found.extend(self.nodes[node].target);
            open.extend(&self.nodes[node].children);
        }
        found.sort_unstable();
        found
    }

    /// The nodes at the top.
    pub(crate) fn roots(&self) -> &[usize] {
        &self.roots
    }
}

/// What is done at each node. All methods are called from several threads at once.
pub(crate) trait Visitor<H>: Sync {
    /// A context that is connected.
    type Context: Clone + Send;
    /// Why one is not.
    type Error;

    /// Connects `node`'s hop from its parent's context, or from the root.
    fn connect(&self, node: usize, parent: Option<&Self::Context>) -> Result<Self::Context, Self::Error>;
    /// Works on a connected node; what lies below it goes on meanwhile.
    fn visit(&self, node: usize, context: &Self::Context);
    /// `node`, and so all below it, could not be reached.
    fn failed(&self, node: usize, error: Self::Error);
    /// `node` and all below it are done.
    fn finished(&self, _node: usize, _context: &Self::Context) {}
    /// `node` and all below it are done, while others still wait for a place.
    fn release(&self, context: Self::Context);
    /// Whether to begin nothing more.
    fn stopped(&self) -> bool;
    /// No more than so many nodes are worked on at once, for this reason.
    fn fewer(&self, threads: usize, error: io::Error) {
        warn_of_fewer(threads, &error);
    }
}

/// It takes longer, and that is all.
pub(crate) fn warn_of_fewer(threads: usize, error: &io::Error) {
    log::warn!("only {threads} at once: {error}");
}

/// Carries out a plan with at most `fanout` threads, and returns when all of them are done.
///
/// # Errors
/// When not even one thread can be started.
pub(crate) fn walk<H: Sync, V: Visitor<H>>(plan: &Plan<H>, fanout: usize, visitor: &V) -> io::Result<()> {
    let work = Work {
        plan,
        visitor,
        state: Mutex::new(State {
            ready: plan.roots.iter().map(|&node| (node, None)).collect(),
            busy: 0,
            open: HashMap::new(),
        }),
        changed: Condvar::new(),
    };
    thread::scope(|scope| {
        for number in 0..fanout.min(plan.nodes.len()) {
            let thread = thread::Builder::new().name(format!("walk-{number}")).stack_size(512 * 1024);
            if let Err(error) = thread.spawn_scoped(scope, || work.run()) {
                if number == 0 {
                    return Err(no_thread(error));
                }
                visitor.fewer(number, no_thread(error));
                break;
            }
        }
        Ok(())
    })
}

struct Work<'a, H, V: Visitor<H>> {
    plan: &'a Plan<H>,
    visitor: &'a V,
    state: Mutex<State<V::Context>>,
    changed: Condvar,
}

struct State<C> {
    /// Nodes whose parent is connected, in the order in which they get a place, each with its parent.
    ready: VecDeque<(usize, Option<C>)>,
    /// How many threads are at work on a node: each may make more ready.
    busy: usize,
    /// Contexts that are still needed: with how many of themselves and their children are not done.
    open: HashMap<usize, (C, usize)>,
}

impl<H, V: Visitor<H>> Work<'_, H, V> {
    fn run(&self) {
        let mut state = self.lock();
        loop {
            if self.visitor.stopped() {
                state.ready.clear();
            }
            if let Some((node, parent)) = state.ready.pop_front() {
                state.busy += 1;
                drop(state);
                let busy = Busy(self);
                self.work_on(node, parent);
                drop(busy);
                state = self.lock();
            } else if state.busy == 0 {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn work_on(&self, node: usize, parent: Option<V::Context>) {
        match self.visitor.connect(node, parent.as_ref()) {
            Ok(context) => {
                drop(parent);
                let children = &self.plan.nodes[node].children;
                let mut state = self.lock();
                state.open.insert(node, (context.clone(), children.len() + 1));
                children.iter().rev().for_each(|&child| state.ready.push_front((child, Some(context.clone()))));
                drop(state);
                if !children.is_empty() {
                    self.changed.notify_all();
                }
                self.visitor.visit(node, &context);
                drop(context);
                self.done(Some(node));
            }
            Err(error) => {
                drop(parent);
                self.visitor.failed(node, error);
                self.done(self.plan.nodes[node].parent);
            }
        }
    }

    /// One of what `node` waits for is done: it, or a child.
    fn done(&self, mut node: Option<usize>) {
        while let Some(number) = node {
            let mut state = self.lock();
            // A node is taken out once, by whoever finishes last; nobody waits for it after that.
            let Some((_, waits)) = state.open.get_mut(&number) else { return };
            *waits -= 1;
            if *waits > 0 {
                return;
            }
            let context = state.open.remove(&number).map(|(context, _)| context);
            let others_wait = !state.ready.is_empty();
            drop(state);
            if let Some(context) = context {
                self.visitor.finished(number, &context);
                if others_wait {
                    self.visitor.release(context);
                }
            }
            node = self.plan.nodes[number].parent;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<V::Context>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread's being at work. A guard, so that a panic in a visit ends the walk instead of leaving the others waiting.
struct Busy<'a, 'b, H, V: Visitor<H>>(&'a Work<'b, H, V>);

impl<H, V: Visitor<H>> Drop for Busy<'_, '_, H, V> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.busy -= 1;
        if state.busy == 0 && state.ready.is_empty() {
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    fn plan(targets: &[&str]) -> Plan<String> {
        Plan::new(targets.iter().map(|target| target.split('/').map(str::to_owned).collect()))
    }

    #[derive(Default)]
    struct Fake {
        log: Mutex<Vec<String>>,
        names: Vec<String>,
        now: AtomicUsize,
        most: AtomicUsize,
        stop: AtomicBool,
        pause: Duration,
    }

    impl Fake {
        fn say(&self, text: String) {
            self.log.lock().expect("not poisoned").push(text);
        }
    }

    impl Visitor<String> for Fake {
        type Context = String;
        type Error = ();

        fn connect(&self, node: usize, parent: Option<&String>) -> Result<String, ()> {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            thread::sleep(self.pause);
            self.now.fetch_sub(1, Ordering::SeqCst);
            let name = &self.names[node];
            let path = parent.map_or(name.clone(), |parent| format!("{parent}/{name}"));
            self.say(format!("connect {path}"));
            if name.starts_with("bad") { Err(()) } else { Ok(path) }
        }

        fn visit(&self, _: usize, context: &String) {
            self.say(format!("visit {context}"));
        }

        fn failed(&self, node: usize, (): ()) {
            self.say(format!("failed {}", self.names[node]));
            if self.names[node] == "bad-stop" {
                self.stop.store(true, Ordering::SeqCst);
            }
        }

        fn finished(&self, _: usize, context: &String) {
            self.say(format!("finished {context}"));
        }

        fn release(&self, context: String) {
            self.say(format!("release {context}"));
        }

        fn stopped(&self) -> bool {
            self.stop.load(Ordering::SeqCst)
        }
    }

    fn walked(targets: &[&str], fanout: usize) -> Vec<String> {
        let plan = plan(targets);
        let fake = Fake { names: plan.nodes.iter().map(|node| node.hop.clone()).collect(), ..Fake::default() };
        walk(&plan, fanout, &fake).expect("walked");
        fake.log.into_inner().expect("not poisoned")
    }

    #[test]
    fn shared_prefixes_are_connected_once_and_depth_comes_first() {
        assert_eq!(
            walked(&["j/a", "j/b/c", "k", "j"], 1),
            [
                "connect j",
                "visit j",
                "connect j/a",
                "visit j/a",
                "finished j/a",
                "release j/a",
                "connect j/b",
                "visit j/b",
                "connect j/b/c",
                "visit j/b/c",
                "finished j/b/c",
                "release j/b/c",
                "finished j/b",
                "release j/b",
                "finished j",
                "release j",
                "connect k",
                "visit k",
                "finished k"
            ]
        );
    }

    #[test]
    fn what_lies_below_a_failed_hop_is_not_tried() {
        assert_eq!(
            walked(&["bad/a", "bad/b", "j/bad2", "j/c"], 1),
            [
                "connect bad",
                "failed bad",
                "connect j",
                "visit j",
                "connect j/bad2",
                "failed bad2",
                "connect j/c",
                "visit j/c",
                "finished j/c",
                "finished j"
            ]
        );
        assert_eq!(plan(&["bad/a", "x", "bad/b"]).targets_below(0), [0, 2]);
    }

    #[test]
    fn after_a_stop_nothing_is_begun() {
        assert_eq!(
            walked(&["a", "bad-stop", "b", "c"], 1),
            ["connect a", "visit a", "finished a", "release a", "connect bad-stop", "failed bad-stop"]
        );
    }

    #[test]
    fn as_many_as_the_fanout_run_side_by_side_and_no_more() {
        let names: Vec<String> = (0..40).map(|n| format!("n{n}")).collect();
        let plan = Plan::new(names.iter().map(|name| vec![name.clone()]));
        let fake = Fake { names, pause: Duration::from_millis(20), ..Fake::default() };
        walk(&plan, 8, &fake).expect("walked");
        assert_eq!(fake.most.into_inner(), 8);
        assert_eq!(
            fake.log.into_inner().expect("not poisoned").iter().filter(|line| line.starts_with("visit")).count(),
            40
        );
    }

    #[test]
    fn a_target_given_twice_is_one() {
        let plan = plan(&["a/b", "a/b", "a"]);
        assert_eq!(plan.nodes.len(), 2);
        assert_eq!((plan.nodes[1].target, plan.nodes[0].target), (Some(0), Some(2)));
    }
}
