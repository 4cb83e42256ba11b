//! A ball goes back and forth between two contexts, and every throw is a call.
//!
//! ```text
//! cargo run --example ping_pong -- 1000
//! cargo offshoot run -p offshoot --example ping_pong -- 1000 web1 web2
//! ```

use std::error::Error;
use std::time::{Duration, Instant};

use offshoot::Address;
use offshoot::prelude::*;

/// What is thrown.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Ball {
    throws: u32,
    /// Who had it last.
    from: Option<Address>,
}

/// Takes the ball and gives it back, one throw older.
#[offshoot::remote]
fn throw(here: &Here, ball: Ball) -> Ball {
    Ball { throws: ball.throws + 1, from: Some(here.context().address().clone()) }
}

#[offshoot::main]
fn main(master: &Master) -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let throws: u32 = arguments.next().map_or(Ok(1_000), |number| number.parse())?;
    let hosts: Vec<String> = arguments.collect();
    let players = match &hosts[..] {
        [] => [master.local().connect()?, master.local().connect()?],
        [one, other] => [master.ssh(one).connect()?, master.ssh(other).connect()?],
        _ => return Err("usage: ping_pong [THROWS [HOST HOST]]".into()),
    };
    let mut ball = Ball::default();
    // The first throw to each starts its worker; the clock is for the game.
    for player in &players {
        ball = throw::on(player, ball)?;
    }
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    for player in players.iter().cycle().take(throws as usize) {
        let (thrown, last) = (Instant::now(), ball.from.clone());
        ball = throw::call(ball).timeout(Duration::from_secs(30)).on(player)?;
        assert_ne!(ball.from, last, "the same one had it twice");
        longest = longest.max(thrown.elapsed());
    }
    let each = began.elapsed().as_secs_f64() * 1e6 / f64::from(throws.max(1));
    println!("{} throws, {each:.0} µs each, the longest {:.1} ms", ball.throws, longest.as_secs_f64() * 1e3);
    for player in &players {
        println!("{}: {:?} there and back, without a call", player.path(), player.ping()?);
    }
    Ok(())
}
