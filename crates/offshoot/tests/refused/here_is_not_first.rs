use offshoot::Here;

#[offshoot::remote]
fn connect(host: String, here: &Here) -> String {
    format!("{host} {}", here.path())
}

fn main() {}
