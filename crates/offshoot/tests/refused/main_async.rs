#[offshoot::main]
async fn main() {}
