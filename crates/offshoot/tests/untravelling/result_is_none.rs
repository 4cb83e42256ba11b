#[derive(serde::Serialize, serde::Deserialize)]
struct Result<T>(T);

#[offshoot::remote]
fn measured() -> Result<u8> {
    Result(1)
}

fn main() {}
