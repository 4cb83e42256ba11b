struct Disk(u64);

impl Disk {
    #[offshoot::remote]
    fn largest(of: Vec<Self>) -> u64 {
        of.iter().map(|disk| disk.0).max().unwrap_or_default()
    }
}

trait Measures: Default {
    #[offshoot::remote]
    fn measured() -> Self {
        Self::default()
    }
}

fn main() {}
