#!/bin/sh
# Turns a fresh mount, uts and pid namespace into a "host": a copy-on-write view of this machine, all of whose writable places are new and empty, so that
# whatever appears in them came from the test. Becomes PID 1 of it, and ends with its standard input. Started by src/host.rs only, by
#   unshare --mount --uts --pid --fork --propagation private sh host.sh
# Variables: FIXTURE_NAME; FIXTURE_SHARED, a folder that every host sees as /run/fixture, read-only, and that holds hosts/NAME for this script to mount on;
# FIXTURE_MACHINE, with the profile `foreign`, what `uname -m` says;
# FIXTURE_PROGRAMS, the folders of the programs under test, separated by colons, seen under their own paths; FIXTURE_INIT, the program that becomes PID 1; FIXTURE_PROFILES.
set -eu
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
umask 022
has() { case " $FIXTURE_PROFILES " in *" $1 "*) return 0 ;; esac; return 1; }
fill() { head -c 100000000 /dev/zero >"$1/.fill" 2>/dev/null || :; }

base=$FIXTURE_SHARED/hosts/$FIXTURE_NAME
upper_size=50% place_size=50%
has full-disk && upper_size=8m place_size=1m
mount -t tmpfs -o "mode=755,size=$upper_size" tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" overlay "$base/root"
root=$base/root

hostname "$FIXTURE_NAME"
echo "$FIXTURE_NAME" >"$root/etc/hostname"
printf '127.0.0.1 localhost %s\n' "$FIXTURE_NAME" >"$root/etc/hosts"

mkdir -p "$root/old-root" "$root/run" "$root/home" "$root/root" "$root/tmp" "$root/var/tmp" "$root/dev" "$root/proc"
mount -t tmpfs -o "mode=755,size=$place_size" tmpfs "$root/run"
mount -t tmpfs -o "mode=755,size=$place_size" tmpfs "$root/home"
mount -t tmpfs -o "mode=700,size=$place_size" tmpfs "$root/root"
mount -t tmpfs -o "mode=1777,size=$place_size" tmpfs "$root/tmp"
mount -t tmpfs -o "mode=1777,size=$place_size" tmpfs "$root/var/tmp"
mount -t tmpfs -o "mode=755,size=$place_size" tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/run/sshd" "$root/run/fixture" "$root/run/upper"
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    major=${node#*:}
    mknod -m 666 "$root/dev/${node%%:*}" c "${major%:*}" "${major#*:}"
done
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o "mode=1777,nosuid,nodev,size=$place_size" tmpfs "$root/dev/shm"

mount --bind "$FIXTURE_SHARED" "$root/run/fixture"
mount -o remount,bind,ro "$root/run/fixture"
mount --bind "$base/upper" "$root/run/upper"
# The programs may lie under a place that has just become empty, or on another file system, which the overlay does not show.
old_ifs=$IFS
IFS=:
for folder in $FIXTURE_PROGRAMS; do
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
    mount -o remount,bind,ro "$root$folder"
done
IFS=$old_ifs

# Accounts, each for one property of a login. Added by hand: useradd takes 50 ms each.
uid=2000
account() { # name shell
    [ -x "$2" ] || return 0
    uid=$((uid + 1))
    echo "$1:x:$uid:$uid::/home/$1:$2" >>"$root/etc/passwd"
    echo "$1:x:$uid:" >>"$root/etc/group"
    echo "$1:*:20000:0:99999:7:::" >>"$root/etc/shadow"
    mkdir "$root/home/$1"
    chown "$uid:$uid" "$root/home/$1"
}
where() { command -v "$1" || echo /nonexistent; }
for shell in sh bash dash ksh mksh zsh fish tcsh; do account "u-$shell" "$(where $shell)"; done
account u-noisy "$(where bash)"
account u-slow "$(where bash)"
account u-rbash "$(where bash)"
account u-ash "$(where busybox)"
account u-nohome /bin/sh
account u-nologin "$(where nologin)"
rmdir "$root/home/u-nohome"
if [ -d "$root/home/u-noisy" ]; then
    printf 'echo "noise from .bashrc: \303\274 \033[1mbold\033[0m OFFSHOOT"\necho "noise on stderr" >&2\n' >"$root/home/u-noisy/.bashrc"
    echo 'sleep 2' >"$root/home/u-slow/.bashrc"
    echo 'PATH=/nonexistent' >"$root/home/u-rbash/.bashrc"
    # bash is restricted by the name that it is started under.
    ln -sf "$(where bash)" "$root/usr/local/bin/rbash"
    sed -i 's#^\(u-rbash:.*:\)[^:]*$#\1/usr/local/bin/rbash#' "$root/etc/passwd"
fi
if [ -d "$root/home/u-ash" ]; then
    ln -sf "$(where busybox)" "$root/usr/local/bin/ash"
    sed -i 's#^\(u-ash:.*:\)[^:]*$#\1/usr/local/bin/ash#' "$root/etc/passwd"
fi
if has accounts; then
    # shellcheck source=tests/peers/accounts.sh
    . "$(dirname "$0")/accounts.sh"
fi
# Every account knows the other hosts by its own ~/.ssh, as a jump host's accounts do; nothing need come with a login. The configuration itself grows later.
for home in "$root"/root "$root"/home/*; do
    mkdir -m 700 "$home/.ssh"
    printf 'IdentityFile ~/.ssh/id\nInclude /run/fixture/ssh_config\n' >"$home/.ssh/config"
    cp "$FIXTURE_SHARED/id" "$home/.ssh/id"
    chmod 600 "$home/.ssh/id"
    chown -R --reference "$home" "$home/.ssh"
done
# The privilege separation account of sshd, where the package has not made it.
grep -q '^sshd:' "$root/etc/passwd" || {
    echo 'sshd:x:1999:65534::/run/sshd:/usr/sbin/nologin' >>"$root/etc/passwd"
    echo 'sshd:*:20000:0:99999:7:::' >>"$root/etc/shadow"
}

if has busybox; then
    sh "$(dirname "$0")/busybox-root.sh" "$root/srv/busybox"
    account busybox /bin/sh
    echo "busybox:x:$uid:$uid::/home/busybox:/bin/sh" >>"$root/srv/busybox/etc/passwd"
    chown "$uid:$uid" "$root/srv/busybox/home/busybox"
fi

if has no-interpreters; then
    for folder in usr/local/bin usr/bin bin; do
        for name in perl python python2 python3 ruby php lua node; do
            for program in "$root/$folder/$name" "$root/$folder/$name"[0-9.]*; do
                if [ -e "$program" ] || [ -h "$program" ]; then rm -f "$program"; fi
            done
        done
    done
fi

if has foreign; then
    mv "$root/usr/bin/uname" "$root/usr/bin/uname.own"
    printf '#!/bin/sh\n/usr/bin/uname.own "$@" | sed s/%s/%s/g\n' "$(uname -m)" "$FIXTURE_MACHINE" >"$root/usr/bin/uname"
    chmod 755 "$root/usr/bin/uname"
fi

cd "$root"
pivot_root . old-root
cd /
mount -t proc proc /proc
umount -l /old-root
rmdir /old-root
mount -t sysfs -o ro sysfs /sys 2>/dev/null || :

if has busybox; then
    mkdir -p /srv/busybox/proc /srv/busybox/dev
    mount -t proc proc /srv/busybox/proc
    mount --rbind /dev /srv/busybox/dev
    mount -t tmpfs -o mode=1777 tmpfs /srv/busybox/tmp
fi

if has noexec; then
    for place in /tmp /var/tmp /run /home /root /dev /dev/shm; do mount -o remount,noexec "$place"; done
    if has busybox; then
        # Flags belong to a mount, not to what is mounted: the bound copies have their own.
        for place in tmp dev dev/shm; do mount -o remount,bind,noexec "/srv/busybox/$place"; done
    fi
fi
if has full-disk; then
    for place in /tmp /var/tmp /run /home /root /dev/shm /dev ""; do fill "$place"; done
fi
if has read-only; then
    mount -o remount,bind,ro /
fi
exec "$FIXTURE_INIT" init
