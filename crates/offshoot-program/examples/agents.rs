//! What a master would send out: the agents at hand, where they were found, and the context of this machine.
//!
//! ```text
//! cargo run -p offshoot-program --example agents
//! ```

use std::error::Error;

use offshoot_program::Master;

fn main() -> Result<(), Box<dyn Error>> {
    // In a process that is to become an agent this does not return.
    offshoot_program::init();
    let master = Master::new()?;
    let (agents, broken) = master.agents().list();
    for agent in &agents {
        println!("{:32} {:>7} bytes sent, {} ({})", agent.triple, agent.sent, agent.path.display(), agent.origin);
    }
    for (path, failure) in &broken {
        println!("{}: {}", path.display(), failure.message);
    }
    if agents.is_empty() {
        println!("no agents for other machines: build them with `cargo xtask agents`");
    }
    // This machine needs none: where no agent for it is at hand, this program itself is one.
    let local = master.local().connect()?;
    let hello = local.info()?.hello;
    println!("{} runs {} {} as process {}", local.path(), hello.triple, hello.version, hello.pid);
    Ok(())
}
