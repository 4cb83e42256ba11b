//! A connection method bound to the context that will run it, so that `context.ssh("web1").user("ops").connect()` reads
//! as it should.

use std::fmt;
use std::time::Duration;

use offshoot_connect::Responder;
use offshoot_connect::methods::{Doas, Method, Ssh, Su, Sudo};
use offshoot_wire::Secret;

use crate::{Context, Error};

/// A method and the context that will run it.
#[derive(Clone)]
#[must_use = "nothing happens until `connect` is called"]
pub struct Via<M> {
    context: Context,
    method: M,
}

impl<M> Via<M> {
    pub(crate) fn new(context: Context, method: M) -> Via<M> {
        Via { context, method }
    }

    /// Changes the method's options: for those that have no short form here.
    pub fn with(self, change: impl FnOnce(M) -> M) -> Via<M> {
        Via { context: self.context, method: change(self.method) }
    }
}

impl<M: fmt::Debug> fmt::Debug for Via<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Via").field("context", &self.context).field("method", &self.method).finish()
    }
}

impl<M: Method> Via<M> {
    /// Starts the new context and waits for it.
    ///
    /// # Errors
    /// An option that cannot be right, or as [`Context::connect`].
    pub fn connect(self) -> Result<Context, Error> {
        self.context.connect(&self.method)
    }
}

impl Via<Ssh> {
    /// Logs in as this user.
    pub fn user(self, user: impl Into<String>) -> Self {
        self.with(|method| method.user(user))
    }

    /// Connects to this port.
    pub fn port(self, port: u16) -> Self {
        self.with(|method| method.port(port))
    }

    /// Tries this private key; may be called several times.
    pub fn identity(self, path: impl Into<String>) -> Self {
        self.with(|method| method.identity(path))
    }

    /// Uses this configuration file instead of the user's.
    pub fn config(self, path: impl Into<String>) -> Self {
        self.with(|method| method.config(path))
    }

    /// Adds an option in the form of ssh's `-o`: `Name=value`.
    pub fn option(self, option: impl Into<String>) -> Self {
        self.with(|method| method.option(option))
    }

    /// How long the connect may take in all; 30 s by default.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.with(|method| method.connect_timeout(timeout))
    }

    /// The password of the account: sent when ssh asks for it, tried once.
    pub fn password(self, secret: impl Into<Secret>) -> Self {
        self.with(|method| method.password(secret))
    }

    /// The passphrase of a key that asks for one.
    pub fn passphrase(self, secret: impl Into<Secret>) -> Self {
        self.with(|method| method.passphrase(secret))
    }

    /// Who answers everything else that ssh asks.
    pub fn responder(self, responder: Responder) -> Self {
        self.with(|method| method.responder(responder))
    }
}

impl Via<Sudo> {
    /// The password that sudo asks for: sent when it does, tried once.
    pub fn password(self, secret: impl Into<Secret>) -> Self {
        self.with(|method| method.password(secret))
    }

    /// Who answers what sudo asks where no password is given.
    pub fn responder(self, responder: Responder) -> Self {
        self.with(|method| method.responder(responder))
    }

    /// Whether the user's login shell runs first.
    pub fn login(self, on: bool) -> Self {
        self.with(|method| method.login(on))
    }

    /// Whether the environment is kept, where the policy allows it.
    pub fn preserve_env(self, on: bool) -> Self {
        self.with(|method| method.preserve_env(on))
    }

    /// How long the connect may take in all; 30 s by default.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.with(|method| method.connect_timeout(timeout))
    }
}

impl Via<Su> {
    /// The password of the user to become: sent when su asks for it, tried once.
    pub fn password(self, secret: impl Into<Secret>) -> Self {
        self.with(|method| method.password(secret))
    }

    /// Who answers what su asks where no password is given.
    pub fn responder(self, responder: Responder) -> Self {
        self.with(|method| method.responder(responder))
    }

    /// How long the connect may take in all; 30 s by default.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.with(|method| method.connect_timeout(timeout))
    }
}

impl Via<Doas> {
    /// The password that doas asks for: sent when it does, tried once.
    pub fn password(self, secret: impl Into<Secret>) -> Self {
        self.with(|method| method.password(secret))
    }

    /// Who answers what doas asks where no password is given.
    pub fn responder(self, responder: Responder) -> Self {
        self.with(|method| method.responder(responder))
    }

    /// How long the connect may take in all; 30 s by default.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.with(|method| method.connect_timeout(timeout))
    }
}
