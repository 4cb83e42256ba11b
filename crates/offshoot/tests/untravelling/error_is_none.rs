#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum Refused {
    TooMany(u32),
}

type Result<T> = std::result::Result<T, Refused>;

#[offshoot::remote]
fn install() -> Result<()> {
    Err(Refused::TooMany(1))
}

fn main() {}
