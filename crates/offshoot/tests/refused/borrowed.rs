#[offshoot::remote]
fn length(text: &str) -> usize {
    text.len()
}

#[offshoot::remote]
fn name() -> &'static str {
    "name"
}

fn main() {}
