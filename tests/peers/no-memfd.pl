#!/usr/bin/perl
# no-memfd.pl COMMAND [ARGUMENT...]: runs COMMAND where memfd_create fails with EPERM, by a seccomp filter, as some container engines set up.
use strict;
use warnings;
use POSIX ();
my ($memfd_create, $seccomp) = @{ { x86_64 => [319, 317], aarch64 => [279, 277] }->{ (POSIX::uname())[4] } // die "unknown machine\n" };
# struct sock_filter: load the number; if memfd_create, errno EPERM; else allow.
my $filter = join '', map { pack 'SCCL', @$_ }
    [0x20, 0, 0, 0], [0x15, 0, 1, $memfd_create], [0x06, 0, 0, 0x00050001], [0x06, 0, 0, 0x7fff0000];
my $program = pack 'Sx6p', 4, $filter;
# SECCOMP_SET_MODE_FILTER
syscall($seccomp, 1, 0, $program) == 0 or die "seccomp: $!\n";
exec @ARGV or die "exec: $!\n";
