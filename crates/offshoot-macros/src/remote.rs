//! `#[offshoot::remote]`.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, GenericArgument, Ident, ItemFn, Pat, PathArguments, Result, ReturnType, Signature, Type};

/// As many as a tuple may have elements for serde.
const MOST: usize = 16;

pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    refuse_arguments(&attribute, "remote")?;
    let function: ItemFn = syn::parse2(item)
        .map_err(|_| Error::new(Span::call_site(), "`#[offshoot::remote]` is for free functions with a body"))?;
    let signature = &function.sig;
    check(signature)?;
    let (here, arguments) = arguments(signature)?;
    let returned = returned(&signature.output)?;

    let (name, visibility) = (&signature.ident, &function.vis);
    let cfgs = function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let names: Vec<&Ident> = arguments.iter().map(|(name, _)| name).collect();
    let types: Vec<&Type> = arguments.iter().map(|(_, ty)| ty).collect();
    let here = here.then(|| quote! { __here, });
    let value = &returned.value;
    let fallible = returned.fallible;
    // Told first, and at the type itself.
    let travelling = types.iter().map(|ty| quote_spanned! { ty.span() => ::offshoot::__expansion::travels::<#ty>(); });
    let spot = match &signature.output {
        ReturnType::Default => Span::call_site(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    let returns = quote_spanned! { spot => ::offshoot::__expansion::travels::<#value>(); };
    let convert = returned.foreign.then(|| {
        quote! {
            let value = value.map_err(|error| {
                // The first of these that fits the error's type: by value a std error, else what shows one.
                use ::offshoot::__expansion::{ShowsError as _, ShowsSendError as _, StdError as _};
                (&&&::offshoot::__expansion::Thrown(error)).remote()
            });
        }
    });
    let module = format!("[`{name}`](fn@{name}) in other contexts.");
    let [on, start, call] = [
        format!("Runs [`{name}`](fn@super::{name}) in a context and waits for what it returns."),
        format!("Runs [`{name}`](fn@super::{name}) in a context, without waiting for what it returns."),
        format!("A call of [`{name}`](fn@super::{name}), to be given options and then a context."),
    ];
    Ok(quote! {
        #function

        #(#cfgs)*
        #[doc = #module]
        // Not everything is used by every program; what is public is so by the function's own visibility; the static
        // that registers the function is placed by link section; the references before an error pick a trait.
        #[allow(
            unused_imports, dead_code, unreachable_pub, clippy::too_many_arguments, clippy::needless_borrow
        )]
        #visibility mod #name {
            use super::*;

            const _: () = {
                #(#travelling)*
                #returns
            };

            const NAME: &str = ::core::module_path!();

            #[doc = #on]
            ///
            /// # Errors
            /// When it did not run to its end there, or its value did not come back: see `offshoot::Error`.
            pub fn on(
                __context: &::offshoot::Context,
                #(#names: #types),*
            ) -> ::core::result::Result<#value, ::offshoot::Error> {
                self::call(#(#names),*).on(__context)
            }

            #[doc = #start]
            #[must_use = "dropping it cancels the call"]
            pub fn start(__context: &::offshoot::Context, #(#names: #types),*) -> ::offshoot::PendingCall<#value> {
                self::call(#(#names),*).start(__context)
            }

            #[doc = #call]
            pub fn call(#(#names: #types),*) -> ::offshoot::Call<#value> {
                ::offshoot::__expansion::call(NAME, &(#(#names,)*)).fallible(#fallible)
            }

            fn run(
                __here: &::offshoot::Here,
                __call: &::offshoot::__expansion::Invocation,
            ) -> ::core::result::Result<::std::vec::Vec<u8>, ::offshoot::Failure> {
                let (#(#names,)*): (#(#types,)*) = ::offshoot::__expansion::arguments(__call)?;
                let value = super::#name(#here #(#names),*);
                #convert
                ::offshoot::__expansion::value::<#value>(__call, &value)
            }

            #[::offshoot::__expansion::linkme::distributed_slice(::offshoot::__expansion::FUNCTIONS)]
            #[linkme(crate = ::offshoot::__expansion::linkme)]
            static REGISTERED: ::offshoot::__expansion::Function = ::offshoot::__expansion::Function::new(NAME, run).fallible(#fallible);
        }
    })
}

pub(crate) fn refuse_arguments(attribute: &TokenStream, name: &str) -> Result<()> {
    if attribute.is_empty() {
        return Ok(());
    }
    Err(Error::new_spanned(attribute, format!("`#[offshoot::{name}]` takes no arguments")))
}

/// Whether the last name of a path is this.
pub(crate) fn is_named(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}

fn check(signature: &Signature) -> Result<()> {
    if let Some(receiver) = signature.receiver() {
        return Err(Error::new_spanned(
            receiver,
            "a method cannot be remote, since its object is here: make it a free function that takes what it needs",
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

/// Whether the function takes `&Here`, and what it takes besides.
fn arguments(signature: &Signature) -> Result<(bool, Vec<(Ident, Type)>)> {
    let mut here = false;
    let mut list = Vec::new();
    for (index, input) in signature.inputs.iter().enumerate() {
        let FnArg::Typed(argument) = input else { continue };
        let ty = &*argument.ty;
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
            _ => format_ident!("arg{index}"),
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
    /// It is a `Result`, as far as its name tells.
    fallible: bool,
}

fn returned(output: &ReturnType) -> Result<Returned> {
    let ty = match output {
        ReturnType::Default => return Ok(Returned { value: quote! { () }, foreign: false, fallible: false }),
        ReturnType::Type(_, ty) => &**ty,
    };
    match ty {
        Type::Reference(_) => {
            return Err(Error::new_spanned(ty, "values travel: return an owned one, such as `String` for `&str`"));
        }
        Type::ImplTrait(_) => return Err(Error::new_spanned(ty, "name the type that the function returns")),
        Type::Never(_) => return Err(Error::new_spanned(ty, "a remote function returns")),
        _ => {}
    }
    let named = |path: &syn::TypePath| path.path.segments.last().is_some_and(|last| last.ident == "Result");
    let fallible = matches!(ty, Type::Path(path) if named(path));
    let own = Returned { value: quote! { #ty }, foreign: false, fallible };
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
        [value, error] if is_foreign(error) => value,
        _ => return Ok(own),
    };
    let value = quote! { ::core::result::Result<#value, ::offshoot::RemoteError> };
    Ok(Returned { value, foreign: true, fallible })
}

/// Whether an error is one of those that everyone uses and serde does not know.
fn is_foreign(error: &Type) -> bool {
    let Type::Path(path) = error else { return false };
    let segments: Vec<String> = path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    let names: Vec<&str> = segments.iter().map(String::as_str).collect();
    match names[..] {
        [.., "io" | "anyhow" | "fmt" | "offshoot", "Error"] => true,
        [.., "Box"] => matches!(
            path.path.segments.last().map(|last| &last.arguments),
            Some(PathArguments::AngleBracketed(inner))
                if matches!(inner.args.first(), Some(GenericArgument::Type(Type::TraitObject(_))))
        ),
        _ => false,
    }
}
