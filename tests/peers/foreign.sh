#!/bin/sh
# foreign.sh MACHINE: the ForceCommand of a host that is a machine of another architecture. The login's command runs where the kernel starts that
# architecture's executables by qemu-user, whatever way they are executed. The registration is seen in a user namespace of this login alone, which
# Linux 6.7 allows; the machine itself stays as it is.
set -eu
case $1 in
aarch64) qemu=aarch64 class=2 machine='\xb7\x00' ;;
armv7l) qemu=arm class=1 machine='\x28\x00' ;;
riscv64) qemu=riscv64 class=2 machine='\xf3\x00' ;;
*) echo "foreign.sh: no such machine: $1" >&2 && exit 2 ;;
esac
if [ "${2-}" != inside ]; then
    exec unshare --user --map-root-user --mount sh "$0" "$1" inside
fi
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
# The beginning of an executable: any ABI, fixed or relocatable. P keeps the name that it was called by, O and F open it and qemu beforehand.
zeros='\x00\x00\x00\x00\x00\x00\x00\x00'
any='\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\xfe\xff\xff\xff'
printf '%s' ":offshoot:M::\x7fELF\x0$class\x01\x01\x00$zeros\x02\x00$machine:$any:$(command -v "qemu-$qemu-static"):POCF" >/proc/sys/fs/binfmt_misc/register
exec /bin/sh -c "${SSH_ORIGINAL_COMMAND-exec /bin/sh}"
