#[offshoot::remote]
fn conditional(one: u8, #[cfg(target_os = "none")] two: u8) -> u8 {
    one
}

fn main() {}
