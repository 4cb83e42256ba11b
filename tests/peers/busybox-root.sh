#!/bin/sh
# busybox-root.sh DIR: a root that holds nothing but a static busybox: no interpreter, no C library, no /proc until it is mounted.
set -eu
busybox=$(command -v busybox)
umask 022
mkdir -p "$1"
cd "$1"
mkdir bin etc tmp proc dev home home/busybox
chmod 1777 tmp
cp "$busybox" bin/busybox
for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "bin/$applet"
done
echo 'root:x:0:0:root:/:/bin/sh' >etc/passwd
echo 'root:x:0:' >etc/group
