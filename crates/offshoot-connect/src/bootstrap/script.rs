//! The two pieces of shell: the probe and the start line.
//!
//! Rules that hold for both, each found the hard way: the probe passes through a login shell that may be tcsh or fish,
//! so it is one line and has no `!`, no assignment, substitution or redirection outside of its single quotes. The
//! start line is pure ASCII (shells lose NUL, some read it differently), has no newline (it comes through `read -r`)
//! and fits the 4,095 bytes of a terminal's line. `PATH` can be empty, so whatever needs a program sets it, always in
//! a subshell: the agent gets the login's own environment, umask and signal dispositions.

use std::fmt::Write;

use super::machine::Machine;
use super::options::Near;

/// Text made of the nonce: 22 letters, digits, `_` and `-`.
pub(super) fn nonce_text(nonce: &[u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    let mut bits = u128::from_be_bytes(*nonce);
    let mut out = String::new();
    for _ in 0..22 {
        out.push(char::from(ALPHABET[(bits & 63) as usize]));
        bits >>= 6;
    }
    out
}

/// The nonce as a shell word that does not look like what it stands for: an echo of the script is no marker.
fn disguised(nonce: &str) -> String {
    let (head, tail) = nonce.split_at(11);
    format!("{head}\\{tail}")
}

/// The script that the probe runs: prints the marker and the facts, then reads one line and runs it.
///
/// A terminal is made transparent first; the status of that is a fact too. A line that was cut is not run: cut behind its
/// first word, `set`, it would show all variables of the login.
pub(super) fn probe(nonce: &str, terminal: bool) -> String {
    let marker = disguised(nonce);
    let facts = "`PATH=/bin:/usr/bin:$PATH;uname -sm` .;read -r _o&&eval \"$_o\"";
    if terminal {
        format!("(PATH=/bin:/usr/bin:$PATH;stty raw -echo);echo M{marker} $? {facts}")
    } else {
        format!("echo M{marker} {facts}")
    }
}

/// What stands for the machine's name where nothing need be sent.
pub(super) const HERE: &str = "here";

/// The probe, which first looks whether the executable of `near` can be run here: then `uname` says that it is here. It opens
/// the file, and only then makes sure that the process which holds it is the one that is meant: its number could be another's
/// by now. What the executable says when it is tried is not worth a word, since the agent is sent then; but that there is no process to
/// try it in is.
pub(super) fn root(probe: &str, near: &Near) -> String {
    let Near { process, started, file, args: [first, _] } = near;
    format!(
        "set /proc/{process} {file}&&[ -x $1/fd/$2 ]&&command exec 4<$1/fd/$2&&read -r _o<$1/stat&&set ${{_o##*\") \"}}&&\
         [ \"${{20}}\" = {started} ]&&(exec /proc/self/fd/4 {first} t >/dev/null 2>&1)&&uname(){{ echo Linux {HERE};}}||exec 4<&-;{probe}"
    )
}

/// The start line for a [`root`] probe that found it: descriptor 3 leads to us, and 1 is the executable, which the agent closes.
pub(super) fn start_near(near: &Near, tag: Option<&(String, String)>, name: &str) -> String {
    let [first, second] = near.args;
    let mut out = String::new();
    export(tag, &mut out);
    for part in ["exec /proc/self/fd/1 ", first, " ", second, " "] {
        out.push_str(part);
    }
    quote(name, &mut out);
    out.push_str(" 3>&1 1<&4 4<&-\n");
    out
}

/// A piece of shell that gives a variable the value that it has in this process.
pub(super) fn former(key: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:@,+= ".contains(&b);
    match std::env::var(key) {
        Ok(value) if value.bytes().all(plain) => format!("{key}='{value}';export {key};"),
        _ => format!("unset {key};"),
    }
}

/// A script that is the same script, in characters that survive another shell when each is escaped as sudo does for a
/// login shell, which leaves `$` as it is.
pub(super) fn plain(script: &str) -> String {
    format!("eval \"`printf '{}'`\"", text(script.as_bytes()))
}

/// How many places there may be for a file.
pub(super) const PLACES: usize = 9;

/// What an entry of the list of places begins with: too odd to come from elsewhere.
pub(super) fn entry(nonce: &str) -> String {
    format!("!{}", &nonce[..6])
}

/// What the start line is made of.
pub(super) struct Line<'a> {
    pub(super) machine: &'a Machine,
    pub(super) stage0: &'a [u8],
    pub(super) nonce: &'a str,
    /// Words of letters and digits that nobody else knows, one for the file in each place.
    pub(super) secrets: &'a [String; PLACES],
    pub(super) tag: Option<&'a (String, String)>,
    /// argv of the agent.
    pub(super) argv: &'a [String],
    /// Whether to say when the payload may come.
    pub(super) ready: bool,
    /// Whether the machine was only assumed.
    pub(super) check: bool,
}

impl Line<'_> {
    /// The start line with its newline.
    ///
    /// The ways, in order, each tried by running stage 0 as a child with the argument `t`, since an `exec` that fails
    /// ends the shell: perl and python3 put stage 0 into a memfd; else it becomes a file, for the moment until it has
    /// unlinked itself, in the first directory that allows it. Its name in each is a secret until it is there, and then it is
    /// ours: the nonce shows in the list of processes, and a pipe that another user put at a name is opened even under
    /// `set -C`. Without chmod there is no such way: what `cp` writes to is named in the list beforehand. `_l` gathers what each said. perl ignores SIGFPE, Python
    /// SIGPIPE and SIGXFSZ, which an exec would hand on.
    pub(super) fn write(&self) -> String {
        let nonce = self.nonce;
        let entry = entry(nonce);
        let mut argv = String::new();
        for arg in self.argv {
            argv.push(' ');
            quote(arg, &mut argv);
        }
        let ready = if self.ready { format!("echo R{};", disguised(nonce)) } else { String::new() };
        let Machine { memfd_create, execveat, .. } = self.machine;

        let mut out = format!("set -- '{}';unset _o;", text(self.stage0));
        export(self.tag, &mut out);
        out.push_str("_s(){ PATH=/bin:/usr/bin${PATH:+:$PATH};LC_ALL=C;export PATH LC_ALL;exec 2>&1;};");
        if self.check {
            let names: Vec<String> = self.machine.names.iter().map(|name| format!("\"Linux \"{name}")).collect();
            let _ = write!(
                out,
                "_m=`_s;uname -sm`;case $_m in {});;*)echo \"!A\"{} $_m .;exit 126;esac;",
                names.join("|"),
                disguised(nonce)
            );
        }
        let _ =
            write!(out, "_x(){{ _m=$(_s;\"$@\" t)&&{{ {ready}exec \"$@\"{argv};}};_l=\"$_l{entry} $? $1: $_m\";}};");
        let _ = write!(
            out,
            "_c=$(_s;command -v perl)&&_x \"$_c\" -C0 -e '$s=shift;$f=syscall {memfd_create},$o=\"o\",19;\
             $f<0&&($f=syscall {memfd_create},$o,3);$f<0&&die\"memfd: $!\\n\";open F,\">&=\",$f;\
             syswrite F,eval\"\\\"$s\\\"\";$SIG{{FPE}}=DEFAULT;@e=map{{;\"$_=$ENV{{$_}}\"}}keys%ENV;\
             syscall {execveat},$f,$z=\"\",pack(\"p*\",\"-\",@ARGV,undef),pack(\"p*\",@e,undef),4096;\
             die\"execveat: $!\\n\"' \"$1\";"
        );
        let _ = write!(
            out,
            "_c=$(_s;command -v python3)&&_x \"$_c\" -SIBc 'import os,sys,_signal;a=sys.argv;\
             [_signal.signal(s,0)for s in(13,25)];m=getattr(os,\"memfd_create\",0)or(lambda n,g:__import__(\"ctypes\").CDLL(None).syscall({memfd_create},\
             n.encode(),g));exec(\"try:f=m(\\\"o\\\",19)\\nexcept OSError:f=-1\\nif f<0:f=m(\\\"o\\\",3)\");\
             os.write(f,eval(\"b\\\"\"+a[1]+\"\\\"\"));os.execve(f,[\"-\"]+a[2:],os.environb)' \"$1\";"
        );
        // Until stage 0 has unlinked its file a lost connection must not end the shell.
        let secrets = self.secrets.join(":");
        let _ = write!(
            out,
            "_n={secrets}:;trap \"\" 1 13 15;for _d in \"$XDG_RUNTIME_DIR\" /dev/shm /run/user/`_s;id -u` /run /tmp /var/tmp /dev \
             \"$HOME\" \"$PWD\";do _f=$_d/.o{nonce}${{_n%%:*}};_n=${{_n#*:}};case $_d in /*)\
             _m=$(_s;umask 077;set -C;printf \"$1\">\"$_f\"&&{{ chmod 700 \"$_f\"||busybox chmod 700 \"$_f\";}}&&\"$_f\" t)&&{{ trap - 1 13 15;{ready}exec \"$_f\"{argv};}};\
             _l=\"$_l{entry} $? $_d: $_m\";_m=$(_s;rm -f \"$_f\"||busybox rm -f \"$_f\"||:>\"$_f\");esac;done;"
        );
        let _ = writeln!(out, "(_s;printf \"!N%s\" \"{nonce}$_l{entry}.\");exit 126");
        out
    }
}

/// Bytes as escapes that mean the same in the format of the shell's `printf` and in double quotes of perl and Python,
/// and that need no care within single quotes of the shell.
fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 3);
    for (at, &byte) in bytes.iter().enumerate() {
        let digit_follows = matches!(bytes.get(at + 1), Some(b'0'..=b'7'));
        if (b' '..=b'~').contains(&byte) && !b"%\\'\"$@`".contains(&byte) {
            out.push(char::from(byte));
        } else if digit_follows {
            let _ = write!(out, "\\{byte:03o}");
        } else {
            let _ = write!(out, "\\{byte:o}");
        }
    }
    out
}

/// A piece of shell that puts the tag into the environment.
fn export(tag: Option<&(String, String)>, out: &mut String) {
    if let Some((key, value)) = tag {
        let _ = write!(out, "export {key}=");
        quote(value, out);
        out.push(';');
    }
}

/// `word` as one word of the shell.
fn quote(word: &str, out: &mut String) {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:@,+=".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        out.push_str(word);
        return;
    }
    out.push('\'');
    for c in word.chars() {
        match c {
            '\'' => out.push_str("'\\''"),
            c => out.push(c),
        }
    }
    out.push('\'');
}
