#[offshoot::remote(timeout = 5)]
fn quick() {}

fn main() {}
