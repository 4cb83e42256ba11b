#![forbid(unsafe_code)]
//! The attributes expand to nothing that a crate without unsafe code has to allow.

use offshoot::prelude::*;

#[offshoot::remote]
fn half(number: u32) -> u32 {
    number / 2
}

#[offshoot::main]
fn main(master: &Master) {
    let context = master.local().connect().expect("a context");
    assert_eq!(half::on(&context, 42).expect("a value"), 21);
}
