struct Disk;

impl Disk {
    #[offshoot::remote]
    fn usage(&self) -> u64 {
        0
    }
}

fn main() {}
