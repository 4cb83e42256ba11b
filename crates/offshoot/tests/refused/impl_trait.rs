#[offshoot::remote]
fn show(what: impl ToString) -> String {
    what.to_string()
}

#[offshoot::remote]
fn numbers() -> impl Iterator<Item = u8> {
    0..3
}

fn main() {}
