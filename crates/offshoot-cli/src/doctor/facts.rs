//! What a target has: a script that asks, and its answers. All of them are foreign text.

use std::collections::BTreeMap;

/// The script. Its answers are lines `name=value`; it needs a POSIX shell and nothing else, and leaves nothing: what it
/// tries in a folder has lost its name before it runs, where `/proc` gives it another. It lies in a folder of its own,
/// which `mkdir` makes or does not: other users, who see the names in the list of processes, could have put something else
/// at that of a file, which a shell opens even where it must not write over a file.
pub(crate) const SCRIPT: &str = r#"
agent=$PPID
LC_ALL=C; export LC_ALL
PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
say() { printf '%s=%s\n' "$1" "$2"; }
first() { read -r line <"$1" && say "$2" "$line"; }
own= made=
away() { [ -z "$made" ] || rm -f "$own/t"; rmdir "$own"; } 2>/dev/null
trap 'away; exit 1' HUP INT TERM
tried() {
  if [ -r /proc/self/stat ]; then
    rm -f "$own/t" && rmdir "$own" && /proc/self/fd/0
  else
    "$own/t"
  fi
}
say kernel "$(uname -srm 2>/dev/null)"
say distribution "$(. /etc/os-release 2>/dev/null && printf %s "$PRETTY_NAME")"
say home "$HOME"
say umask "$(umask)"
say image "$(readlink "/proc/$agent/exe" 2>/dev/null)"
say perl "$(perl -e 'printf "%vd", $^V' 2>/dev/null)"
say python3 "$(python3 -SIBc 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)"
tools=
for tool in ssh sudo su doas docker podman kubectl; do
  command -v "$tool" >/dev/null 2>&1 && tools="$tools $tool"
done
say tools "$tools"
[ -r /proc/self/stat ] && say proc yes || say proc no
[ -c /dev/ptmx ] && [ -d /dev/pts ] && say terminals yes || say terminals no
first /proc/sys/vm/memfd_noexec memfd_noexec 2>/dev/null
first /proc/loadavg load 2>/dev/null
while read -r name value rest; do
  [ "$name" = MemAvailable: ] && say memory "$value"
done 2>/dev/null </proc/meminfo
while read -r a b c d e rest; do
  case $a$b$c in
    Maxopenfiles) say files "$d $e" ;;
    Maxprocesses*) say processes "$c $d" ;;
  esac
done 2>/dev/null </proc/self/limits
set -- /proc/[0-9]*
say running "$#"
group=
while IFS=: read -r number kinds place; do
  case $number:$kinds in
    0:) group=/sys/fs/cgroup$place ;;
    *:pids) group=/sys/fs/cgroup/pids$place; break ;;
  esac
done 2>/dev/null </proc/self/cgroup
[ -n "$group" ] && first "$group/pids.max" group_max 2>/dev/null
[ -n "$group" ] && first "$group/pids.current" group_now 2>/dev/null
for folder in "$XDG_RUNTIME_DIR" /dev/shm "/run/user/$(id -u)" /run /tmp /var/tmp /dev "$HOME"; do
  case $folder in /*) ;; *) continue ;; esac
  case "$seen:" in *":$folder:"*) continue ;; esac
  seen=$seen:$folder
  own=$folder/.offshoot-doctor.$$ made=
  if [ ! -d "$folder" ]; then
    what=absent
  elif (umask 077; mkdir "$own") 2>/dev/null && made=yes && (umask 077; echo '#!/bin/sh' >"$own/t") 2>/dev/null; then
    chmod 700 "$own/t" && tried <"$own/t" 2>/dev/null && what=runs || what=noexec
  else
    what=closed
  fi
  [ -z "$made" ] || away
  free=$(df -Pk "$folder" 2>/dev/null | { read -r line; read -r a b c free rest; printf %s "$free"; })
  say folder "$what ${free:--} $folder"
done
say end end
"#;

/// The most of an answer that is looked at. A target that says more is not asked further.
pub(crate) const ANSWER_MAX: usize = 64 * 1024;

/// What a folder is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Files can be made there, and run.
    Runs,
    /// Files can be made there, and not run.
    NoExec,
    /// No file can be made there.
    Closed,
}

impl Use {
    /// The stable word of the JSON records.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Use::Runs => "runs",
            Use::NoExec => "noexec",
            Use::Closed => "closed",
        }
    }
}

/// A folder where the loader could be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    pub(crate) path: String,
    pub(crate) what: Use,
    /// Free space in KiB, where the target could tell.
    pub(crate) free_kib: Option<u64>,
}

/// What a target has. What it did not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    texts: BTreeMap<String, String>,
    pub(crate) folders: Vec<Folder>,
}

impl Facts {
    /// Reads the script's answers. Lines that are none are passed over: a shell's start files may print.
    pub(crate) fn read(answer: &[u8]) -> Facts {
        let mut facts = Facts::default();
        for line in String::from_utf8_lossy(answer).lines() {
            let Some((name, value)) = line.split_once('=') else { continue };
            if name == "folder" {
                facts.folders.extend(folder(value));
            } else if !value.trim().is_empty()
                && !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_3".contains(&byte))
            {
                facts.texts.insert(name.to_owned(), value.trim().to_owned());
            }
        }
        facts
    }

    /// One answer.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// Whether the script came to its end.
    pub(crate) fn is_whole(&self) -> bool {
        self.text("end").is_some()
    }

    /// All that was told, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(name, value)| (name.as_str(), value.as_str())).filter(|(name, _)| *name != "end")
    }

    /// The ways in which a login starts an agent there, in the order it tries them: an interpreter that places the loader
    /// in memory, or the first folder where programs run.
    pub(crate) fn ways(&self) -> Vec<String> {
        let refused = self.refuses_memory();
        let interpreters = ["perl", "python3"].into_iter().filter(|_| !refused);
        let mut ways: Vec<String> =
            interpreters.filter_map(|name| Some(format!("{name} {}", self.text(name)?))).collect();
        let folder = self.folders.iter().find(|folder| folder.what == Use::Runs);
        ways.extend(folder.map(|folder| format!("a file in {}", folder.path)));
        if ways.is_empty() {
            ways.push("no way is left".to_owned());
        }
        ways
    }

    /// Whether files in memory cannot be had, or not be run. What is neither in memory nor unlinked was no matter of a
    /// login: the program itself, for local contexts.
    pub(crate) fn refuses_memory(&self) -> bool {
        let unlinked = self.text("image").is_some_and(|image| image.ends_with(" (deleted)"));
        (self.in_memory() == Some(false) && unlinked) || self.text("memfd_noexec") == Some("2")
    }

    /// Whether the agent runs from memory; `None` when that was not told.
    pub(crate) fn in_memory(&self) -> Option<bool> {
        self.text("image").map(|image| image.starts_with("/memfd:"))
    }

    /// The second number of a pair of limits: the hard one. `None` when it is not told or there is no limit.
    pub(crate) fn hard(&self, name: &str) -> Option<u64> {
        self.text(name)?.split(' ').nth(1)?.parse().ok()
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

fn folder(value: &str) -> Option<Folder> {
    let mut parts = value.splitn(3, ' ');
    let what = match parts.next()? {
        "runs" => Use::Runs,
        "noexec" => Use::NoExec,
        "closed" => Use::Closed,
        _ => return None,
    };
    let free_kib = parts.next()?.parse().ok();
    Some(Folder { path: parts.next()?.to_owned(), what, free_kib })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(shell: &str, script: &str) -> (Facts, String) {
        let mut command = std::process::Command::new(shell);
        let output = command.args(["-c", script]).output().expect("a shell");
        (Facts::read(&output.stdout), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    #[test]
    fn this_machine_answers_in_every_shell_that_is_here() {
        let here = std::process::id();
        for shell in ["sh", "bash", "dash", "ksh", "mksh", "zsh", "busybox"] {
            let found =
                std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
            if !found.into_iter().any(|folder| folder.join(shell).exists()) {
                continue;
            }
            let mut command = std::process::Command::new(shell);
            if shell == "busybox" {
                command.arg("sh");
            }
            let output = command.args(["-c", SCRIPT]).output().expect("a shell");
            let facts = Facts::read(&output.stdout);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(facts.is_whole(), "{shell}: {facts:?}: {said}");
            assert_eq!(said, "", "{shell}");
            assert!(facts.text("kernel").is_some_and(|kernel| kernel.starts_with("Linux ")), "{shell}: {facts:?}");
            let image = std::fs::read_link("/proc/self/exe").expect("a path");
            assert_eq!(facts.text("image"), image.to_str(), "{shell}, below {here}");
            assert_eq!(facts.text("proc"), Some("yes"), "{shell}");
            assert!(facts.hard("files").is_some(), "{shell}: {facts:?}");
            let tmp = facts.folders.iter().find(|folder| folder.path == "/tmp").expect("/tmp");
            assert!(tmp.what == Use::Runs && tmp.free_kib.is_some(), "{shell}: {tmp:?}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_told_and_nothing_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("text").to_owned();
        let (facts, _) = asked("sh", &format!("HOME={path}; XDG_RUNTIME_DIR=/proc/self; {SCRIPT}"));
        let of = |name: &str| facts.folders.iter().find(|folder| folder.path == name).map(|folder| folder.what);
        assert_eq!((of(&path), of("/proc/self")), (Some(Use::Runs), Some(Use::Closed)), "{facts:?}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn what_is_killed_while_it_tries_a_folder_leaves_nothing_there() {
        for signal in ["KILL", "TERM"] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().to_str().expect("text").to_owned();
            // What is tried there ends whoever tries it.
            let ends = format!("printf '#!/bin/sh\\n[ \"${{PWD#{path}}}\" = \"$PWD\" ] || kill -{signal} $PPID\\n'");
            let script = format!("HOME={path}; XDG_RUNTIME_DIR={path}; cd {path}; {SCRIPT}");
            let script = script.replace("echo '#!/bin/sh'", &ends);
            assert!(script.contains(&ends));
            let (facts, said) = asked("sh", &script);
            assert!(!facts.is_whole(), "{signal}: it was not ended: {said}");
            let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").flatten().collect();
            assert!(left.is_empty(), "{signal}: {left:?}");
        }
    }

    /// Puts a pipe at the name, and a program over it once somebody writes to it.
    const ATTACKER: &str = "use POSIX; $| = 1; ($name, $program) = @ARGV; POSIX::mkfifo($name, 0777) or die; \
        chmod 0777, $name; print qq(there\\n); open F, '<', $name; rename $program, $name; sleep 60";

    #[test]
    fn nothing_is_run_that_another_user_put_in_its_way() {
        use std::io::{BufRead, BufReader, Write};
        use std::os::unix::fs::PermissionsExt;
        use std::os::unix::process::CommandExt;
        use std::process::{Command, Stdio};

        for shell in ["dash", "bash", "busybox"] {
            let folder = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o777)).tempdir_in("/var/tmp");
            let folder = folder.expect("a folder");
            let path = folder.path().to_str().expect("text").to_owned();
            let sticky = std::fs::Permissions::from_mode(0o1777);
            std::fs::set_permissions(folder.path(), sticky).expect("a folder of ours");
            let applet = ["sh"].iter().filter(|_| shell == "busybox");
            let script = format!("read go; HOME={path}; XDG_RUNTIME_DIR={path}; {SCRIPT}");
            let mut victim = Command::new(shell);
            victim.args(applet).args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let Ok(mut victim) = victim.spawn() else {
                println!("not run: {shell} is not installed");
                continue;
            };
            let (marker, program) = (format!("{path}/marker"), format!("{path}/program"));
            let mut attacker = Command::new("perl");
            let prepare = format!(
                "open F, '>', '{program}'; print F qq(#!/bin/sh\n>{marker}\n); close F; chmod 0755, '{program}'; "
            );
            attacker.args(["-e", &(prepare + ATTACKER), &format!("{path}/.offshoot-doctor.{}", victim.id()), &program]);
            let attacker = attacker.uid(65534).gid(65534).stdout(Stdio::piped()).spawn();
            let go = attacker.map(|mut attacker| {
                let mut line = String::new();
                BufReader::new(attacker.stdout.take().expect("a pipe")).read_line(&mut line).expect("its word");
                assert_eq!(line, "there\n", "{shell}");
                attacker
            });
            victim.stdin.take().expect("a pipe").write_all(b"go\n").expect("it reads");
            // It says less than a pipe holds. What opened the other's pipe may wait there for ever.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
            while victim.try_wait().expect("a state").is_none() && std::time::Instant::now() < deadline {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            victim.kill().expect("a child of ours");
            let output = victim.wait_with_output().expect("its answers");
            let Ok(mut attacker) = go else {
                println!("not run: {shell}: no process of another user can be started, or perl is not installed");
                continue;
            };
            attacker.kill().expect("it runs");
            attacker.wait().expect("its end");
            assert!(!std::path::Path::new(&marker).exists(), "{shell}: what another user put there was run");
            let facts = Facts::read(&output.stdout);
            let what = facts.folders.iter().find(|folder| folder.path == path).map(|folder| folder.what);
            assert!(facts.is_whole() && what == Some(Use::Closed), "{shell}: {facts:?}");
        }
    }

    #[test]
    fn whatever_comes_is_read_and_only_what_is_an_answer_is_kept() {
        let facts = Facts::read(
            b"Welcome!\nA=b\nkernel=Linux \x1b[31m\nfolder=runs 12 /a b\nfolder=odd 1 /x\nfolder=\nload=\n=x\n\xff=\n",
        );
        assert_eq!(facts.all().collect::<Vec<_>>(), [("kernel", "Linux \u{1b}[31m")]);
        assert_eq!(facts.folders, [Folder { path: "/a b".into(), what: Use::Runs, free_kib: Some(12) }]);
        assert!(!facts.is_whole());
    }
}
