//! What local contexts of a program are started from.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use offshoot_connect::{Image, LocalImage};
use offshoot_node::OwnImage;
use offshoot_wire::{Failure, FailureKind};

use crate::agents::Agents;
use crate::identity::identity;

/// The image of local contexts: the agent for this machine when one is at hand, since it is small and static, else this
/// program itself, when it [can become an agent](crate::init).
pub(crate) struct Local {
    agents: Arc<Agents>,
    own_alone: bool,
    chosen: OnceLock<Result<Chosen, Failure>>,
    /// For workers of this process itself.
    own: OnceLock<OwnImage>,
}

enum Chosen {
    File(PathBuf, Option<File>),
    Memory(OwnedFd),
    Own(OwnImage),
}

/// The triple of the agent for the machine that this program runs on.
fn triple() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

impl Local {
    /// With `own_alone` no agent is looked for.
    pub(crate) fn new(agents: Arc<Agents>, own_alone: bool) -> Local {
        Local { agents, own_alone, chosen: OnceLock::new(), own: OnceLock::new() }
    }

    fn choose(&self) -> Result<Chosen, Failure> {
        let triple = triple();
        if !self.own_alone {
            if let Some(file) = self.agents.executable(&triple) {
                let open = File::open(&file).ok();
                return Ok(Chosen::File(file, open));
            }
            if let Ok(bundle) = self.agents.find(&triple)
                && let Some(memory) = in_memory(&bundle)
            {
                return Ok(Chosen::Memory(memory));
            }
        }
        if !crate::master::can_become_agent() {
            let message = if self.own_alone {
                "only this program itself was to be used, and it cannot become an agent"
            } else {
                "no agent for this machine is at hand, and this program cannot become one"
            };
            return Err(Failure::new(FailureKind::NoAgent(triple), message)
                .hint("call `offshoot::init()` first thing in `main`, or build an agent with `cargo xtask agents`"));
        }
        Ok(Chosen::Own(OwnImage::new()))
    }
}

/// The agent as a sealed file in memory; `None` where the system has none or does not run it.
fn in_memory(bundle: &offshoot_connect::bundle::Bundle) -> Option<OwnedFd> {
    let agent = bundle.unpack().ok()?;
    let file = offshoot_mux::image::memfd("offshoot-agent").ok()?;
    offshoot_mux::io::write_all(&file, &agent, None).ok()?;
    offshoot_mux::image::seal(&file).ok()?;
    Some(file)
}

impl LocalImage for Local {
    fn image(&self) -> Result<Image<'_>, Failure> {
        match self.chosen.get_or_init(|| self.choose()) {
            Ok(Chosen::File(path, _)) => Ok(Image::Path(path)),
            Ok(Chosen::Memory(file)) => Ok(Image::Open(file.as_fd())),
            Ok(Chosen::Own(own)) => own.image(),
            Err(failure) => Err(failure.clone()),
        }
    }

    fn open(&self) -> Option<BorrowedFd<'_>> {
        match (self.image().ok()?, self.chosen.get()?) {
            (Image::Open(file), _) => Some(file),
            (_, Ok(Chosen::File(_, open))) => open.as_ref().map(File::as_fd),
            _ => None,
        }
    }

    fn program(&self, wanted: &[u8; 32]) -> Result<Image<'_>, Failure> {
        crate::master::can_become_worker()?;
        self.own.get_or_init(|| OwnImage::of_program(identity)).program(wanted)
    }
}
