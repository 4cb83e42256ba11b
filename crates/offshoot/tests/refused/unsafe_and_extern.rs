#[offshoot::remote]
unsafe fn poke(at: usize) -> u8 {
    *(at as *const u8)
}

#[offshoot::remote]
extern "C" fn callback(code: i32) -> i32 {
    code
}

fn main() {}
