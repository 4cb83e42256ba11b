//! S11: a hostile relay between two honest agents, and what else can become of a content on its way through several of them.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use offshoot_connect::methods::Local;
use offshoot_node::{Context, Image, Images, Options, Root};
use offshoot_tests::bounded;
use offshoot_wire::{Address, ContentRef, Failure, FailureKind, Packing, Ran};
use sha2::{Digest, Sha256};

use crate::records;
use crate::relay::Harm;
use crate::stage::{Director, IDENTITY, PATIENCE, PROGRAM, Role, alone, options};

/// A tree, all of whose contexts are real.
struct Tree {
    root: Root,
    director: Director,
}

impl Tree {
    fn new(change: impl FnOnce(&mut Options)) -> Tree {
        let director = Director::new();
        let mut options = options(&director);
        change(&mut options);
        Tree { root: Root::start(options).expect("a tree"), director }
    }

    fn below(&self, parent: &Context, role: Role) -> Context {
        self.director.next_is(role);
        parent.connect(Local::new()).expect("an honest agent, whoever stands before it")
    }

    #[track_caller]
    fn finish(self) {
        self.root.shutdown(std::time::Duration::ZERO);
        let left = || self.director.processes();
        assert!(bounded::eventually(PATIENCE, || left().is_empty()), "left: {:?}", left());
    }
}

/// A function runs in a fresh worker of this context.
#[track_caller]
fn works(context: &Context) {
    let worker = context.new_worker(IDENTITY).expect("a worker");
    let calling = worker.start_call("echo", b"value".to_vec(), None, None).expect("it is up");
    assert_eq!(calling.wait(Some(Instant::now() + PATIENCE)).expect("a value"), b"value");
}

#[track_caller]
fn damaged(context: &Context, by: &Address) {
    let error = context.new_worker(IDENTITY).expect_err("what came is no image of the program");
    assert_eq!(error.kind(), &FailureKind::Damaged(by.clone()), "{error}");
    assert_eq!(&context.echo(b"goes on").expect("it refused a content, and lives")[..], b"goes on");
}

fn altered(harm: Harm) {
    let tree = Tree::new(|_| ());
    let above = tree.below(&tree.root.context(), Role::Honest);
    let behind = tree.below(&above, Role::Relay(harm));
    let further = tree.below(&behind, Role::Honest);
    // The agent behind the relay can but say whom it had it from.
    damaged(&behind, above.address());
    damaged(&further, above.address());
    let told = |line: &String| line.starts_with("WARN") && line.contains("is something else");
    assert!(bounded::eventually(PATIENCE, || records::all().iter().any(told)), "the agent's warning did not come home");
    // Nobody else notices: neither the agent before the relay, nor what is beside it, now or before.
    works(&above);
    works(&tree.below(&above, Role::Honest));
    works(&tree.below(&tree.below(&above, Role::Relay(Harm::None)), Role::Honest));
    tree.finish();
}

#[test]
fn s11_an_image_whose_first_byte_a_relay_alters_is_refused() {
    alone(|| altered(Harm::First));
}

#[test]
fn s11_an_image_that_a_relay_alters_in_its_middle_is_refused() {
    alone(|| altered(Harm::Middle));
}

#[test]
fn s11_an_image_whose_last_byte_a_relay_alters_is_refused() {
    alone(|| altered(Harm::Last));
}

#[test]
fn s11_an_image_that_a_relay_announces_as_longer_is_refused() {
    alone(|| altered(Harm::Longer));
}

#[test]
fn s11_an_image_that_a_relay_announces_as_shorter_is_refused() {
    alone(|| altered(Harm::Shorter));
}

#[test]
fn s11_a_worker_of_another_build_is_refused_before_anything_is_called_and_its_caller_is_told_what_to_do() {
    alone(|| {
        let tree = Tree::new(|_| ());
        let above = tree.below(&tree.root.context(), Role::Honest);
        let below = tree.below(&above, Role::Honest);
        // What the root serves as that image came as it was promised: only the image itself knows better.
        const ANOTHER: [u8; 32] = [2; 32];
        for context in [&below, &above] {
            let below = || context.info().expect("it goes on").children.len();
            let before = below();
            let error = context.new_worker(ANOTHER).expect_err("the image is not of the build that is wanted");
            assert_eq!((error.kind(), error.ran()), (&FailureKind::Unsupported, Ran::NotSent), "{error:?}");
            assert_eq!(error.message(), "the image is of another build of the program", "{error:?}");
            assert!(error.hint().contains("`cargo offshoot build`"), "{error:?}");
            assert_eq!(below(), before, "it runs all the same");
            works(context);
        }
        tree.finish();
    });
}

/// A file that is not, any more, what was promised of it.
struct Changed(Arc<File>, ContentRef);

impl Images for Changed {
    fn image(&self, _: &[u8; 32], _: &str, _: bool) -> Result<Image, Failure> {
        Ok(Image::new(self.1, Arc::clone(&self.0), 0))
    }
}

#[test]
fn s11_an_image_whose_file_changed_is_told_as_the_roots_own_damage_at_every_depth() {
    alone(|| {
        let bytes = std::fs::read(PROGRAM).expect("it was built");
        let content =
            ContentRef { hash: Sha256::digest(&bytes).into(), length: bytes.len() as u64, packing: Packing::Stored };
        let mut file = tempfile::tempfile().expect("a file");
        let middle = bytes.len() / 2;
        for part in [&bytes[..middle], &[!bytes[middle]], &bytes[middle + 1..]] {
            file.write_all(part).expect("room");
        }
        let changed = Changed(Arc::new(file), content);
        let tree = Tree::new(|options| options.images = Some(Arc::new(changed)));
        let above = tree.below(&tree.root.context(), Role::Honest);
        let below = tree.below(&above, Role::Honest);
        damaged(&below, &Address::ROOT);
        damaged(&above, &Address::ROOT);
        tree.finish();
    });
}
