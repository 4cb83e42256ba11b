//! `#[offshoot::remote]`.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Error, FnArg, GenericArgument, Ident, ItemFn, Meta, Pat, Path, PathArguments, Result, ReturnType, Signature, Token,
    Type,
};

/// As many as a tuple may have elements for serde.
const MOST: usize = 16;

pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let offshoot = crate_path(attribute, "remote")?;
    let function: ItemFn = syn::parse2(item)
        .map_err(|_| Error::new(Span::call_site(), "`#[offshoot::remote]` is for free functions with a body"))?;
    let signature = &function.sig;
    check(signature)?;
    let (here, arguments) = arguments(signature)?;
    let returned = returned(&signature.output, &offshoot)?;

    let (name, visibility) = (&signature.ident, &function.vis);
    let names: Vec<&Ident> = arguments.iter().map(|(name, _)| name).collect();
    let types: Vec<&Type> = arguments.iter().map(|(_, ty)| ty).collect();
    let value = &returned.value;
    // No argument or function of the user's can have these names.
    let own = |name: &str| Ident::new(name, Span::mixed_site());
    let [context, spot, invocation] = ["context", "here", "call"].map(own);
    let places: Vec<Ident> = (0..types.len()).map(|place| own(&format!("place{place}"))).collect();
    let here = here.then(|| quote! { #spot, });
    // Told first, and at the type itself.
    let travelling = types.iter().map(|ty| quote_spanned! { ty.span() => #offshoot::__expansion::travels::<#ty>(); });
    let at_value = match &signature.output {
        ReturnType::Default => Span::call_site(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    let at = Span::mixed_site().located_at(at_value);
    let result = Ident::new("result", at);
    let returns = quote_spanned! { at_value => #offshoot::__expansion::travels::<#value>(); };
    let convert = returned.foreign.then(|| {
        quote_spanned! { at =>
            let #result = ::core::result::Result::map_err(#result, |error| {
                // The first of these that fits the error's type: by value a std error, else what shows one, else none.
                use #offshoot::__expansion::{ShowsError as _, ShowsSendError as _, StdError as _, Untold as _};
                (&&&&#offshoot::__expansion::Thrown(error)).remote()
            });
        }
    });
    let beside = function.attrs.iter().filter_map(|attribute| carried(&attribute.meta, &["cfg", "deprecated", "doc"]));
    let cfgs: Vec<_> = function.attrs.iter().filter_map(|attribute| carried(&attribute.meta, &["cfg"])).collect();
    let quiet = quote! {
        // The user is told of the function itself; nothing else here is the user's to change. Not every program uses all of it.
        #[allow(
            dead_code, deprecated, missing_copy_implementations, missing_debug_implementations, non_camel_case_types,
            non_snake_case, private_interfaces, unreachable_pub, unused_imports, unused_qualifications,
            clippy::all, clippy::nursery, clippy::pedantic, clippy::restriction
        )]
    };
    let (plain, of) = (name.unraw().to_string(), of_crate());
    let about = format!("[`{name}`](fn@{name}) in other contexts.");
    let [on, start, call] = [
        format!("Runs [`{name}`](fn@{name}) in a context and waits for what it returns."),
        format!("Runs [`{name}`](fn@{name}) in a context, without waiting for what it returns."),
        format!("A call of [`{name}`](fn@{name}), to be given options and then a context."),
    ];
    Ok(quote! {
        #function

        #(#[#beside])*
        #[doc = #about]
        #quiet
        #visibility enum #name {}

        // All in one: in the impl of a type the compiler drops it as a whole. And what is associated is in nobody's way: types
        // mean what they mean in the function's own signature.
        #(#[#cfgs])*
        #quiet
        impl #name {
            const __REGISTERED: () = {
                #(#travelling)*
                #returns
                {
                    #[#offshoot::__expansion::linkme::distributed_slice(#offshoot::__expansion::FUNCTIONS)]
                    #[linkme(crate = #offshoot::__expansion::linkme)]
                    static REGISTERED: #offshoot::__expansion::Function = #offshoot::__expansion::Function::new(
                        #name::__NAME,
                        ::core::concat!(::core::file!(), ":", ::core::line!()),
                        #name::__run,
                    )
                    .fallible(#name::__FALLIBLE);
                }
            };

            #[doc = #on]
            ///
            /// # Errors
            /// When it did not run to its end there, or its value did not come back: see `offshoot::Error`.
            #visibility fn on(
                #context: &#offshoot::Context,
                #(#names: #types),*
            ) -> ::core::result::Result<#value, #offshoot::Error> {
                Self::call(#(#names),*).on(#context)
            }

            #[doc = #start]
            #[must_use = "dropping it cancels the call"]
            #visibility fn start(#context: &#offshoot::Context, #(#names: #types),*) -> #offshoot::PendingCall<#value> {
                Self::call(#(#names),*).start(#context)
            }

            #[doc = #call]
            #visibility fn call(#(#names: #types),*) -> #offshoot::Call<#value> {
                #offshoot::__expansion::call(Self::__NAME, &(#(#names,)*)).fallible(Self::__FALLIBLE)
            }

            const __NAME: &'static str = ::core::concat!(::core::module_path!(), "::", #plain, #of);

            const __FALLIBLE: bool = {
                use #offshoot::__expansion::NoResult as _;
                #offshoot::__expansion::Probe::<#value>::FALLIBLE
            };

            fn __run(
                #spot: &#offshoot::Here,
                #invocation: &#offshoot::__expansion::Invocation,
            ) -> ::core::result::Result<::std::vec::Vec<u8>, #offshoot::Failure> {
                let (#(#places,)*): (#(#types,)*) = #offshoot::__expansion::arguments(#invocation)?;
                let #result = #name(#here #(#places),*);
                #convert
                #offshoot::__expansion::value::<#value>(#invocation, &#result)
            }
        }
    })
}

/// The crate that the expansion names: `::offshoot`, or what the attribute says.
pub(crate) fn crate_path(attribute: TokenStream, name: &str) -> Result<TokenStream> {
    if attribute.is_empty() {
        return Ok(quote! { ::offshoot });
    }
    let parse = |input: ParseStream| {
        input.parse::<Token![crate]>()?;
        input.parse::<Token![=]>()?;
        let path = input.call(Path::parse_mod_style)?;
        input.parse::<Option<Token![,]>>()?;
        if input.is_empty() { Ok(path) } else { Err(input.error("")) }
    };
    let message = format!(
        "`#[offshoot::{name}]` takes nothing, or `crate = path` where the crate offshoot is known by another path"
    );
    match parse.parse2(attribute.clone()) {
        Ok(path) => Ok(quote! { #path }),
        Err(_) => Err(Error::new_spanned(attribute, message)),
    }
}

/// What a function's name is among all of a program, beside its path: of a library and a program of one package the crates have one
/// name, and so have two versions of a library.
fn of_crate() -> String {
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let program = if std::env::var_os("CARGO_BIN_NAME").is_some() { ":bin" } else { "" };
    format!("@{version}{program}")
}

/// Of an attribute of the function what is to stand at an item beside it, too: those with these names, but no text of
/// documentation.
fn carried(meta: &Meta, names: &[&str]) -> Option<TokenStream> {
    if meta.path().is_ident("cfg_attr") {
        let Meta::List(list) = meta else { return None };
        let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()?;
        let mut parts = parts.iter();
        let condition = parts.next()?;
        let parts: Vec<TokenStream> = parts.filter_map(|part| carried(part, names)).collect();
        return (!parts.is_empty()).then(|| quote! { cfg_attr(#condition, #(#parts),*) });
    }
    let text = meta.path().is_ident("doc") && !matches!(meta, Meta::List(_));
    (!text && names.iter().any(|name| meta.path().is_ident(name))).then(|| quote! { #meta })
}

/// Whether the last name of a path is this.
pub(crate) fn is_named(ty: &Type, name: &str) -> bool {
    matches!(bare(ty), Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}

/// A type without what a macro that wrote it has put around it.
fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => bare(&group.elem),
        Type::Paren(paren) => bare(&paren.elem),
        ty => ty,
    }
}

fn check(signature: &Signature) -> Result<()> {
    if let Some(receiver) = signature.receiver() {
        return Err(Error::new_spanned(
            receiver,
            "a method cannot be remote, since its object is here: make it a free function that takes what it needs",
        ));
    }
    if let Some(word) = word_self(signature.to_token_stream()) {
        return Err(Error::new(
            word,
            "a function of a type cannot be remote, since it is found by its module and name: put it beside the `impl`",
        ));
    }
    if let Some(keyword) = &signature.asyncness {
        return Err(Error::new_spanned(
            keyword,
            "a remote function cannot be async: it runs on a thread of its own, and may block",
        ));
    }
    if let syn::Safety::Unsafe(keyword) = &signature.safety {
        return Err(Error::new_spanned(
            keyword,
            "a remote function cannot be unsafe: a caller elsewhere cannot keep its promises",
        ));
    }
    if let Some(abi) = &signature.abi {
        return Err(Error::new_spanned(abi, "a remote function has Rust's own calling convention"));
    }
    let generics = &signature.generics;
    if !generics.params.is_empty() || generics.where_clause.is_some() {
        let what: &dyn quote::ToTokens =
            if generics.params.is_empty() { &generics.where_clause } else { &generics.params };
        return Err(Error::new_spanned(
            what,
            "a remote function cannot be generic: it is found by its name alone, so its types must be known",
        ));
    }
    if let Some(variadic) = &signature.variadic {
        return Err(Error::new_spanned(variadic, "a remote function has a fixed number of arguments"));
    }
    Ok(())
}

/// Where `Self` is named, which only something in an `impl` can.
fn word_self(tokens: TokenStream) -> Option<Span> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident == "Self" => Some(ident.span()),
        TokenTree::Group(group) => word_self(group.stream()),
        _ => None,
    })
}

/// Whether the function takes `&Here`, and what it takes besides.
fn arguments(signature: &Signature) -> Result<(bool, Vec<(Ident, Type)>)> {
    let mut here = false;
    let mut list = Vec::new();
    for (index, input) in signature.inputs.iter().enumerate() {
        let FnArg::Typed(argument) = input else { continue };
        let ty = bare(&argument.ty);
        if let Some(cfg) = argument.attrs.iter().find(|attribute| attribute.path().is_ident("cfg")) {
            return Err(Error::new_spanned(cfg, "an argument is there or it is not: put `cfg` on the whole function"));
        }
        match ty {
            Type::Reference(reference) if is_named(&reference.elem, "Here") => {
                if index > 0 || reference.mutability.is_some() {
                    return Err(Error::new_spanned(ty, "`&Here` is the first argument, and shared"));
                }
                here = true;
                continue;
            }
            Type::Reference(_) => {
                return Err(Error::new_spanned(
                    ty,
                    "arguments travel by value: take `String` for `&str`, `Vec<T>` for `&[T]`, `PathBuf` for `&Path`",
                ));
            }
            Type::ImplTrait(_) => {
                return Err(Error::new_spanned(ty, "a remote function cannot be generic: name the argument's type"));
            }
            _ => {}
        }
        let name = match &*argument.pat {
            Pat::Ident(pattern) => pattern.ident.clone(),
            // Not one that the user could have written beside it.
            _ => Ident::new(&format!("arg{index}"), Span::mixed_site()),
        };
        list.push((name, ty.clone()));
    }
    if list.len() > MOST {
        let last = &signature.inputs;
        return Err(Error::new(last.span(), format!("a remote function takes at most {MOST} arguments")));
    }
    Ok((here, list))
}

/// What a function returns, as it travels.
struct Returned {
    value: TokenStream,
    /// Its error does not travel as itself.
    foreign: bool,
}

fn returned(output: &ReturnType, offshoot: &TokenStream) -> Result<Returned> {
    let ty = match output {
        ReturnType::Default => return Ok(Returned { value: quote! { () }, foreign: false }),
        ReturnType::Type(_, ty) => bare(ty),
    };
    match ty {
        Type::Reference(_) => {
            return Err(Error::new_spanned(ty, "values travel: return an owned one, such as `String` for `&str`"));
        }
        Type::ImplTrait(_) => return Err(Error::new_spanned(ty, "name the type that the function returns")),
        Type::Never(_) => return Err(Error::new_spanned(ty, "a remote function returns")),
        _ => {}
    }
    let own = Returned { value: quote! { #ty }, foreign: false };
    let Type::Path(path) = ty else { return Ok(own) };
    let Some(last) = path.path.segments.last().filter(|last| last.ident == "Result") else { return Ok(own) };
    let PathArguments::AngleBracketed(parameters) = &last.arguments else { return Ok(own) };
    let types: Vec<&Type> = parameters
        .args
        .iter()
        .filter_map(|parameter| match parameter {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        })
        .collect();
    let value = match types[..] {
        [value] => value,
        [value, error] if is_foreign(error, offshoot) => value,
        _ => return Ok(own),
    };
    let value = quote! { ::core::result::Result<#value, #offshoot::RemoteError> };
    Ok(Returned { value, foreign: true })
}

/// Whether an error is one of those that everyone uses and serde does not know.
fn is_foreign(error: &Type, offshoot: &TokenStream) -> bool {
    let Type::Path(path) = bare(error) else { return false };
    let segments: Vec<String> = path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    let names: Vec<&str> = segments.iter().map(String::as_str).collect();
    match names[..] {
        [.., "io" | "anyhow" | "fmt" | "offshoot", "Error"] => true,
        [.., of, "Error"] => offshoot.clone().into_iter().last().is_some_and(|last| last.to_string() == of),
        [.., "Box"] => matches!(
            path.path.segments.last().map(|last| &last.arguments),
            Some(PathArguments::AngleBracketed(inner))
                if matches!(inner.args.first(), Some(GenericArgument::Type(Type::TraitObject(_))))
        ),
        _ => false,
    }
}
