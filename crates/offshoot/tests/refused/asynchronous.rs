#[offshoot::remote]
async fn later() {}

fn main() {}
