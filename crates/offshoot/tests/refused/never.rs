#[offshoot::remote]
fn serve() -> ! {
    loop {}
}

fn main() {}
