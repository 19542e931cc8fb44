# shellcheck shell=bash disable=SC2154 # cache and log are the sourcing script's
# Sourced by scripts/kind and scripts/images: Debian root file systems as base images where no image can be pulled.

base_image() { # base_image REPOSITORY PACKAGE,PACKAGE...: import a minimal Debian with these packages, once; sets $image
  local archive
  archive=$cache/base-$SUITE-$(sha256sum <<<"$2" | cut -c 1-12).tar
  image=$1:$(basename "$archive" .tar)
  ! docker image inspect "$image" >/dev/null 2>&1 || return 0
  [ -f "$archive" ] || step "make ${image%:*}" 60 "check the network and the Debian mirror, then run the same again" \
    make_base "$archive" "$2"
  step "import ${image%:*}" 5 "check free space" docker import "$archive" "$image"
}

make_base() { # make_base ARCHIVE PACKAGES
  local work mirror
  work=$cache/tmp-$(basename "$1" .tar)
  rm -rf --one-file-system "$work" "$1.part" # an interrupted run's
  # shellcheck disable=SC2016 # apt-get's own variable
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | head -n 1)
  # A mount namespace of its own: what debootstrap mounts goes with it, however it ends.
  unshare --mount debootstrap --variant=minbase --include="$2" "$SUITE" "$work" ${mirror:+"$mirror"}
  rm -rf "$work"/var/cache/apt/archives/*.deb "$work"/var/lib/apt/lists/* "$work"/usr/share/{doc,man,locale}/*
  tar --create --file "$1.part" --directory "$work" --one-file-system .
  mv "$1.part" "$1"
  rm -rf --one-file-system "$work"
}
