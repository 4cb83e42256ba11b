struct Disk;

impl Disk {
    #[offshoot::remote]
    fn count() -> u64 {
        1
    }
}

fn main() {}
