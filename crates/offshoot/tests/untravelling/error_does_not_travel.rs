#[derive(Debug)]
struct Refused;

#[offshoot::remote]
fn install() -> Result<(), Refused> {
    Err(Refused)
}

fn main() {}
