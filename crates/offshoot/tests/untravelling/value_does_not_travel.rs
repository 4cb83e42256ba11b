struct Usage {
    bytes: u64,
}

#[offshoot::remote]
fn usage() -> Usage {
    Usage { bytes: 0 }
}

fn main() {
    let _ = usage().bytes;
}
