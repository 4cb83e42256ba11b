#[offshoot::remote(crate = "offshoot")]
fn quick() {}

#[offshoot::main(crate)]
fn main() {}
