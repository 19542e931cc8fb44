# shellcheck shell=bash disable=SC2154 # cache and log are the sourcing script's
# Sourced by scripts/kind: the node image, from binaries and a Debian base, where the published one cannot be had.
NODE_PACKAGES=systemd,systemd-sysv,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,libseccomp2,pigz,bash,ca-certificates,curl,jq,procps,containernetworking-plugins

node_image() { # sets $image
  local base key
  base_image runner-node-base $NODE_PACKAGES
  base=$image
  key=$(cat images/node/versions images/node/Dockerfile scripts/lib/node.sh <(echo "$base") | sha256sum | cut -c 1-12)
  # shellcheck disable=SC2153 # from images/node/versions
  image=runner-node:$KUBERNETES-$key
  docker image inspect "$image" >/dev/null 2>&1 ||
    step "make the node image" 60 "check free space, then run the same again" make_node "$base" "$image"
}

make_node() { # make_node BASE IMAGE
  local work=$cache/tmp-node kubernetes=$cache/kubernetes-$KUBERNETES
  rm -rf "$work" && mkdir -p "$work/proxy"
  stage_root "$work/root"
  cp "$kubernetes/kube-proxy" "$work/proxy/"
  cp images/node/Dockerfile "$work"
  DOCKER_BUILDKIT=0 docker build --network none --build-arg "BASE=$1" --target proxy --tag runner-node-proxy "$work"
  DOCKER_BUILDKIT=0 docker build --network none --build-arg "BASE=$1" --tag runner-node-empty "$work"
  component_images "$work/root" >"$work/components"
  fill_node "$2" "$work/components"
  xargs docker image rm runner-node-proxy runner-node-empty <"$work/components"
  rm -rf "$work"
}

stage_root() { # stage_root FOLDER: kind's own files and our binaries where a node has them
  local root=$1 files
  files=$(module_folder "sigs.k8s.io/kind@$KIND")/images/base/files
  mkdir -p "$root/usr/local/bin" "$root/usr/local/sbin" "$root/usr/bin"
  cp -r --no-preserve=mode "$files/." "$root"
  chmod -R a+rX,u+w "$root" && chmod 755 "$root"/kind/bin/* "$root"/usr/local/bin/* # a module's files have no modes
  cp "$cache/containerd-$CONTAINERD"/* "$root/usr/local/bin/"
  cp "$cache/runc-$RUNC/runc" "$root/usr/local/sbin/"
  cp "$cache/kubernetes-$KUBERNETES"/{kubeadm,kubelet,kubectl} "$root/usr/bin/"
  printf '%s' "$KUBERNETES" >"$root/kind/version"
}

component_images() { # component_images ROOT: make what the control plane runs, named as kubeadm names it; print the names
  local root=$1 name kubernetes=$cache/kubernetes-$KUBERNETES sandbox
  # The image that kind's containerd is configured to hold pods with may be another version than kubeadm's.
  sandbox=$(sed -n 's/.*sandbox_image = "\(.*\)"/\1/p' "$root"/etc/containerd/config.toml)
  make_pause "$cache/tmp-node/pause"
  for name in $("$kubernetes/kubeadm" config images list --kubernetes-version "$KUBERNETES") "$sandbox"; do
    case $name in
    */kube-proxy:*) docker tag runner-node-proxy "$name" ;;
    */kube-*) program_image "$name" "$kubernetes/$(basename "${name%:*}")" ;;
    */etcd:*) program_image "$name" "$(find "$cache/etcd-$ETCD" -type f)" etcd ;;
    */coredns:*) program_image "$name" "$cache/coredns-$COREDNS/coredns" coredns /usr/local/bin/coredns ;;
    */pause:*) program_image "$name" "$cache/tmp-node/pause" pause /usr/local/bin/pause ;;
    esac >&2
    echo "$name"
  done
}

make_pause() { # make_pause FILE: the program that holds a pod's namespaces, from Kubernetes' source
  local source
  source=$(module_folder "k8s.io/kubernetes@$KUBERNETES")/build/pause/linux/pause.c
  gcc -Os -Wall -static -DVERSION="$KUBERNETES" -o "$1" "$source"
}

program_image() { # program_image NAME FILE [PROGRAM [ENTRYPOINT]]: an image of this one static program
  local program=${3:-$(basename "$2")}
  tar --create --transform "s|.*|usr/local/bin/$program|" --absolute-names "$2" |
    docker import ${4:+--change "ENTRYPOINT [\"$4\"]"} - "$1"
}

fill_node() { # fill_node IMAGE FILE: put the images named in the file into the node's containerd, and keep that as IMAGE
  local node names
  mapfile -t names <"$2"
  node=$(docker run --detach --privileged --network none --entrypoint sleep runner-node-empty infinity)
  docker exec --detach "$node" containerd
  until docker exec "$node" ctr version >/dev/null 2>&1; do sleep 0.5; done
  # Unpacking is left to the nodes: an overlay cannot lie on an overlay.
  docker save "${names[@]}" | docker exec --interactive "$node" ctr --namespace k8s.io images import --no-unpack --digests -
  docker exec "$node" ctr --namespace k8s.io images list --quiet
  docker exec "$node" sh -c 'kill $(pidof containerd) && while pidof containerd; do sleep 0.2; done; rm -rf /run/containerd'
  docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' --change 'CMD []' "$node" "$1"
  docker rm --force "$node"
}
