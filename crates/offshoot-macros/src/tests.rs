//! What may be marked, and what the compiler says of the rest.

use proc_macro2::TokenStream;
use quote::ToTokens;

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
        ("fn f(all: Vec<Self>) {}", "put it beside the `impl`"),
        ("fn f() -> Option<Box<Self>> { None }", "put it beside the `impl`"),
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
    for attribute in ["fast", "crate", "crate = \"offshoot\"", "crate = a, fast", "crate = a b", "timeout = 5"] {
        let message = refused(crate::remote::expand, attribute, "fn f() {}");
        assert!(message.contains("takes nothing, or `crate = path`"), "{attribute}: {message}");
    }
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
    assert!(refused(crate::entry::expand, "x", "fn main() {}").contains("takes nothing, or `crate = path`"));
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
        let beside = matches!(items[1..], [syn::Item::Enum(_), syn::Item::Impl(_)]);
        assert!(beside && matches!(items[0], syn::Item::Fn(_)), "{source}");
    }
}

#[test]
fn another_path_of_the_crate_is_the_only_one_that_the_expansion_names() {
    let functions = ["fn f() {}", "fn f(here: &Here, a: u8) -> io::Result<u8> { Ok(a) }"].map(|f| (f, "remote"));
    for (source, name) in functions.into_iter().chain([("fn main(master: &Master) {}", "main")]) {
        let expand = if name == "main" { crate::entry::expand } else { crate::remote::expand };
        for (attribute, path) in
            [("crate = a::b", "a :: b"), ("crate = ::c,", ":: c"), ("crate = super::d", "super :: d")]
        {
            let expansion = expand(tokens(attribute), tokens(source)).expect("it may be marked").to_string();
            assert!(expansion.contains(&format!("{path} :: __expansion")), "{expansion}");
            assert!(!expansion.contains("offshoot ::"), "{expansion}");
        }
        let expansion = expand(tokens(""), tokens(source)).expect("it may be marked").to_string();
        assert!(expansion.contains(":: offshoot :: __expansion"), "{expansion}");
    }
    let source = "fn f() -> Result<(), cluster::Error> { Ok(()) }";
    for (attribute, replaced) in [("crate = my::cluster", true), ("", false)] {
        let expansion = crate::remote::expand(tokens(attribute), tokens(source)).expect("it may be marked").to_string();
        assert_eq!(expansion.contains("RemoteError"), replaced, "{attribute}");
    }
}

#[test]
fn what_is_said_of_the_function_is_said_of_what_stands_beside_it() {
    let said = "#[cfg(unix)] #[deprecated] #[doc = \"text\"] #[doc(hidden)] #[inline] \
                #[cfg_attr(unix, inline, cfg(linux), doc(cfg(a)))] #[cfg_attr(unix, inline)] fn f() {}";
    let expansion = crate::remote::expand(tokens(""), tokens(said)).expect("it may be marked");
    let items = syn::parse2::<syn::File>(expansion).expect("items").items;
    let told = |attributes: &[syn::Attribute]| -> Vec<String> {
        let kept = attributes.iter().map(|attribute| attribute.meta.to_token_stream().to_string());
        kept.filter(|text| !text.starts_with("allow") && !text.starts_with("doc =")).collect()
    };
    let cfgs = ["cfg (unix)", "cfg_attr (unix , cfg (linux))"];
    let all = ["cfg (unix)", "deprecated", "doc (hidden)", "cfg_attr (unix , cfg (linux) , doc (cfg (a)))"];
    for item in &items[1..] {
        let (attributes, expected) = match item {
            syn::Item::Enum(item) => (&item.attrs, &all[..]),
            syn::Item::Impl(item) => (&item.attrs, &cfgs[..]),
            _ => panic!("an item that is not known"),
        };
        assert_eq!(told(attributes), expected);
    }
}

#[test]
fn functions_of_one_name_in_crates_of_one_name_are_told_apart() {
    let expansion = crate::remote::expand(tokens(""), tokens("fn r#type() {}")).expect("it may be marked").to_string();
    // This test is no program, and cargo says its version.
    let name = format!("\"::\" , \"type\" , \"@{}\"", env!("CARGO_PKG_VERSION"));
    assert!(expansion.contains(&name), "{name} is not in {expansion}");
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
