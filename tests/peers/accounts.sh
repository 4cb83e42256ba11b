# Accounts with passwords, and sudoers of each kind, for the profile `accounts`. Read by host.sh before the host's root is entered; uses its `account`,
# `where` and `root`. FIXTURE_SHARED/hosts/NAME.passwords, which src/accounts.rs writes, has one line `ACCOUNT:PASSWORD` for each account.
passwords=$FIXTURE_SHARED/hosts/$FIXTURE_NAME.passwords
for name in $(cut -d: -f1 "$passwords"); do
    [ "$name" = root ] || account "$name" "$(where bash)"
done
chpasswd --crypt-method SHA512 --root "$root" <"$passwords"
# A password that must be changed, and an account that is over.
sed -i -e '/^[a-z]*-stale:/s/^\([^:]*:[^:]*\):[^:]*:/\1:0:/' -e '/^[a-z]*-ended:/s/:[^:]*:\([^:]*\)$/:1:\1/' "$root/etc/shadow"

# For sshd. What each may do is in its configuration, by name; this is text that looks like a prompt, from the login itself, which reads what comes before it
# goes on.
sed -i 's#^\(p-nologin:.*:\)[^:]*$#\1/usr/sbin/nologin#' "$root/etc/passwd"
printf '%s\n' 'cat /etc/motd' "printf \"p-noisy@fixture's password: \" >&2" 'read -r -t 1 got' 'echo "got:$got" >>~/got' >"$root/home/p-noisy/.bashrc"
echo 'sleep 1' >"$root/home/p-slow/.bashrc"
printf 'This host asks for a password.\nPassword: ' >"$root/etc/motd"

# For sudo.
cat >"$root/etc/sudoers.d/fixture" <<'SUDOERS'
Defaults timestamp_timeout=0, logfile=/var/log/sudo.log
Defaults:sudo-lecture lecture=always
Defaults:sudo-tty requiretty
Defaults:sudo-ttypw requiretty
Defaults:sudo-nopty !use_pty
Defaults:sudo-log use_pty, log_input, log_output, iolog_dir=/var/log/sudo-io
Defaults:sudo-stars pwfeedback
Defaults:sudo-prompt passprompt="Passwort von %p auf %h bitte: "
Defaults:sudo-override passprompt="Password: ", passprompt_override
Defaults:sudo-target targetpw
Defaults:sudo-once passwd_tries=1
Defaults:sudo-insults insults
Defaults:sudo-root rootpw
Defaults:sudo-keep timestamp_timeout=5, timestamp_type=global
sudo-nopass ALL=(ALL:ALL) NOPASSWD: ALL
sudo-tty ALL=(ALL:ALL) NOPASSWD: ALL
sudo-one ALL=(root) NOPASSWD: /usr/bin/id
SUDOERS
for name in $(cut -d: -f1 "$passwords"); do
    case $name in
        sudo-nopass | sudo-tty | sudo-one | sudo-none) ;;
        sudo-*) echo "$name ALL=(ALL:ALL) ALL" >>"$root/etc/sudoers.d/fixture" ;;
    esac
done
chmod 440 "$root/etc/sudoers.d/fixture"

if has sudo-rs; then
    # It knows fewer settings, and reads a file of its own.
    cp --remove-destination "$FIXTURE_SUDO_RS" "$root/usr/bin/sudo"
    chmod 4755 "$root/usr/bin/sudo"
    cat >"$root/etc/sudoers-rs" <<'SUDOERS'
Defaults timestamp_timeout=0
Defaults:sudo-nopty !use_pty
Defaults:sudo-stars pwfeedback
sudo-nopass ALL=(ALL:ALL) NOPASSWD: ALL
sudo-pw ALL=(ALL:ALL) ALL
sudo-nopty ALL=(ALL:ALL) ALL
sudo-stars ALL=(ALL:ALL) ALL
sudo-one ALL=(root) NOPASSWD: /usr/bin/id
SUDOERS
    chmod 440 "$root/etc/sudoers-rs"
fi

# A line for each password that sudo, su or doas got and found wrong. A question that nobody answers is none, nor what the tool itself says or logs of it.
cat >"$root/usr/local/sbin/fixture-refused" <<'REFUSED'
#!/bin/sh
echo "$PAM_SERVICE $PAM_USER" >>/var/log/refused
REFUSED
chmod 755 "$root/usr/local/sbin/fixture-refused"
: >"$root/var/log/refused"
for service in sudo su doas; do
    file=$root/etc/pam.d/$service
    [ -f "$file" ] || continue
    {
        [ "$service" != su ] || echo 'auth sufficient pam_rootok.so'
        echo 'auth [success=done new_authtok_reqd=done auth_err=ignore default=die] pam_unix.so'
        echo 'auth optional pam_exec.so quiet seteuid /usr/local/sbin/fixture-refused'
        echo 'auth requisite pam_deny.so'
        cat "$file"
    } >"$file.new"
    mv "$file.new" "$file"
done

# For doas.
printf 'permit doas-pw as root\npermit nopass doas-nopass as root\n' >"$root/etc/doas.conf"
chmod 600 "$root/etc/doas.conf"
