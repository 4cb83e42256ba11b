#[offshoot::remote]
struct Usage {
    bytes: u64,
}

fn main() {}
