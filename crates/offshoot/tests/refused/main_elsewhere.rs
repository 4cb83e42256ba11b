#[offshoot::main]
fn run() {}

fn main() {}
