//! `#[offshoot::main]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, FnArg, ItemFn, Result, Type};

use crate::remote::{crate_path, is_named};

pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let offshoot = crate_path(attribute, "main")?;
    let span = proc_macro2::Span::call_site();
    let mut inner: ItemFn =
        syn::parse2(item).map_err(|_| Error::new(span, "`#[offshoot::main]` is for the function `main`"))?;
    let signature = &inner.sig;
    if signature.ident != "main" {
        return Err(Error::new_spanned(&signature.ident, "`#[offshoot::main]` is for the function `main`"));
    }
    if let Some(keyword) = &signature.asyncness {
        return Err(Error::new_spanned(keyword, "`main` cannot be async: offshoot's handles block"));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new_spanned(&signature.generics, "`main` cannot be generic"));
    }
    let takes = signature.inputs.iter().collect::<Vec<_>>();
    let master = match takes[..] {
        [] => false,
        [FnArg::Typed(argument)] if is_master(&argument.ty) => true,
        [first, ..] => return Err(Error::new_spanned(first, "`main` takes nothing, or one `&Master`")),
    };
    let attributes = std::mem::take(&mut inner.attrs);
    let visibility = std::mem::replace(&mut inner.vis, syn::Visibility::Inherited);
    let output = &inner.sig.output;
    let run = if master {
        quote! {
            let master = #offshoot::__expansion::master();
            let result = main(&master);
            ::core::mem::drop(master);
            result
        }
    } else {
        quote! { main() }
    };
    Ok(quote! {
        #(#attributes)*
        #visibility fn main() #output {
            #inner
            #offshoot::init();
            #run
        }
    })
}

fn is_master(ty: &Type) -> bool {
    matches!(ty, Type::Reference(reference) if reference.mutability.is_none() && is_named(&reference.elem, "Master"))
}
