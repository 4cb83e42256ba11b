#[offshoot::remote]
fn sum<T: Into<u64>>(numbers: Vec<T>) -> u64 {
    numbers.into_iter().map(Into::into).sum()
}

fn main() {}
