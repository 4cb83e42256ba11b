//! What may be marked, and what the compiler says of the rest.

use proc_macro2::TokenStream;

fn tokens(source: &str) -> TokenStream {
    source.parse().expect("tokens")
}

/// The compiler's message for a source that is refused.
fn refused(expand: fn(TokenStream, TokenStream) -> syn::Result<TokenStream>, attribute: &str, source: &str) -> String {
    match expand(tokens(attribute), tokens(source)) {
        Ok(expansion) => panic!("{source} is accepted: {expansion}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_misuse_of_remote_is_an_error_that_says_so() {
    for (source, expected) in [
        ("struct S;", "is for free functions with a body"),
        ("fn declared(x: u8);", "is for free functions with a body"),
        ("fn f(&self) {}", "a method cannot be remote"),
        ("fn f(self: Box<Self>) {}", "a method cannot be remote"),
        ("async fn f() {}", "cannot be async"),
        ("unsafe fn f() {}", "cannot be unsafe"),
        ("extern \"C\" fn f() {}", "Rust's own calling convention"),
        ("fn f<T>(x: T) {}", "cannot be generic"),
        ("fn f<'a>(x: Vec<&'a str>) {}", "cannot be generic"),
        ("fn f<const N: usize>() {}", "cannot be generic"),
        ("fn f() where u8: Copy {}", "cannot be generic"),
        ("fn f(x: impl Copy) {}", "cannot be generic"),
        ("fn f(x: &str) {}", "take `String` for `&str`"),
        ("fn f(x: &mut u8) {}", "arguments travel by value"),
        ("fn f(x: u8, here: &Here) {}", "`&Here` is the first argument"),
        ("fn f(here: &mut Here) {}", "`&Here` is the first argument"),
        ("fn f() -> &'static str { \"\" }", "return an owned one"),
        ("fn f() -> impl Copy { 1 }", "name the type"),
        ("fn f() -> ! { loop {} }", "a remote function returns"),
        (
            "fn f(a:u8,b:u8,c:u8,d:u8,e:u8,f:u8,g:u8,h:u8,i:u8,j:u8,k:u8,l:u8,m:u8,n:u8,o:u8,p:u8,q:u8) {}",
            "at most 16 arguments",
        ),
    ] {
        let message = refused(crate::remote::expand, "", source);
        assert!(message.contains(expected), "expected {expected:?} for {source}, got {message:?}");
    }
    assert!(refused(crate::remote::expand, "fast", "fn f() {}").contains("takes no arguments"));
}

#[test]
fn every_misuse_of_main_is_an_error_that_says_so() {
    for (source, expected) in [
        ("struct S;", "is for the function `main`"),
        ("fn other() {}", "is for the function `main`"),
        ("async fn main() {}", "cannot be async"),
        ("fn main<T>() {}", "cannot be generic"),
        ("fn main(master: Master) {}", "one `&Master`"),
        ("fn main(master: &mut Master) {}", "one `&Master`"),
        ("fn main(master: &Master, more: u8) {}", "one `&Master`"),
    ] {
        let message = refused(crate::entry::expand, "", source);
        assert!(message.contains(expected), "expected {expected:?} for {source}, got {message:?}");
    }
    assert!(refused(crate::entry::expand, "x", "fn main() {}").contains("takes no arguments"));
}

#[test]
fn what_may_be_marked_expands_to_items_beside_the_function() {
    for source in [
        "fn f() {}",
        "pub(crate) fn f(here: &Here, mut a: u8, (b, c): (u8, u8), r#type: String) -> Vec<u8> { vec![] }",
        "#[cfg(unix)] pub fn f(here: &offshoot::Here) -> io::Result<()> { Ok(()) }",
        "fn f() -> Result<u8, Box<dyn Error>> { Ok(1) }",
    ] {
        let expansion = crate::remote::expand(tokens(""), tokens(source)).expect("it may be marked");
        let items = syn::parse2::<syn::File>(expansion).expect("items").items;
        assert!(matches!(items[..], [syn::Item::Fn(_), syn::Item::Mod(_)]), "{source}");
    }
}

#[test]
fn only_errors_that_serde_does_not_know_are_replaced() {
    for (returned, replaced) in [
        ("io::Result<u8>", true),
        ("anyhow::Result<u8>", true),
        ("Result<u8, std::io::Error>", true),
        ("Result<u8, anyhow::Error>", true),
        ("Result<u8, offshoot::Error>", true),
        ("Result<u8, Box<dyn Error + Send>>", true),
        ("Result<u8, MyError>", false),
        ("Result<u8, Box<MyError>>", false),
        ("Result<u8, String>", false),
        ("Option<u8>", false),
        ("Error", false),
    ] {
        let source = format!("fn f() -> {returned} {{ todo() }}");
        let expansion = crate::remote::expand(tokens(""), tokens(&source)).expect("it may be marked").to_string();
        assert_eq!(expansion.contains("RemoteError"), replaced, "{returned}");
    }
}
