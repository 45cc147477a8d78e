#!/bin/sh
# Mounts the filesystems that the tests work on, in a guest and natively alike.
# usage: fixtures.sh ROOT NAME=DEVICE…   NAME is a filesystem type, or ovl-TYPE for an overlay laid out on TYPE;
# DEVICE is a block device, or an image file where mount makes loop devices. A tmpfs is always mounted.
set -eu
root=$1
shift
for pair; do
    name=${pair%%=*}
    device=${pair#*=}
    at=$root/$name
    mkdir -p "$at"
    mount -t "${name#ovl-}" "$device" "$at"
    case $name in
    ovl-*)
        mkdir -p "$at/lower" "$at/upper" "$at/work" "$at/merged"
        mount -t overlay -o "lowerdir=$at/lower,upperdir=$at/upper,workdir=$at/work" overlay "$at/merged"
        ;;
    esac
done
mkdir -p "$root/tmpfs"
mount -t tmpfs tmpfs "$root/tmpfs"
