# shellcheck shell=bash disable=SC2154 # cache and log are the sourcing script's
# Sourced by scripts/kind: the parts of a cluster built from source, each once, into $cache/<part>-<version>/.
# A part is whole when its folder is there: it is made beside it and renamed.

go_kind() { go_part kind 5 "sigs.k8s.io/kind@$KIND" 0 "" "" ""; }

go_engine() { # the engine, and what it starts containers with
  go_part engine 142 "github.com/moby/moby/v2@$ENGINE" 0 "" "" /cmd/dockerd /cmd/docker-proxy
  go_containers
}

go_containers() { # the runtime, also of the nodes
  go_part runc 11 "github.com/opencontainers/runc@$RUNC" 1 netgo,osusergo,seccomp "-linkmode external -extldflags -static" ""
  go_part containerd 56 "github.com/containerd/containerd/v2@$CONTAINERD" 0 no_btrfs,no_devmapper,no_zfs,no_aufs "" \
    /cmd/containerd /cmd/ctr /cmd/containerd-shim-runc-v2
}

go_kubernetes() {
  local version=k8s.io/component-base/version minor=${KUBERNETES#v1.}
  minor=${minor%%.*}
  go_part etcd 27 "go.etcd.io/etcd/server/v3@$ETCD" 0 "" "" ""
  # The version is what kubeadm and kind go by.
  go_part kubernetes 320 "k8s.io/kubernetes@$KUBERNETES" 0 "" \
    "-X $version.gitVersion=$KUBERNETES -X $version.gitMajor=1 -X $version.gitMinor=$minor" \
    /cmd/kube-apiserver /cmd/kube-controller-manager /cmd/kube-scheduler /cmd/kube-proxy /cmd/kubelet /cmd/kubeadm /cmd/kubectl
  go_part coredns 30 "github.com/coredns/coredns@$COREDNS" 0 "" "" ./coredns
}

module_folder() { # module_folder MODULE@VERSION: where its source lies
  go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'
}

go_part() { # go_part NAME ESTIMATE_S MODULE@VERSION CGO TAGS LDFLAGS /PACKAGE...; ./FOLDER: of images/node
  local folder=$cache/$1-${3#*@}
  [ -d "$folder" ] || step "build $1 ${3#*@}" "$2" "check the network and the Go module proxy, then run the same again: \
it goes on from here" build_go "$folder" "${@:3}"
}

build_go() { # build_go FOLDER MODULE@VERSION CGO TAGS LDFLAGS /PACKAGE...
  local folder=$1 module=$2 cgo=$3 tags=$4 flags=$5 work=$cache/tmp-go packages
  packages=("${@:6}")
  [[ $6 = ./* ]] || packages=("${packages[@]/#/${module%@*}}")
  rm -rf "$work"
  mkdir -p "$work/bin"
  cp -r images/node/coredns "$work"
  cd "$work" || return
  unset GOFLAGS GOWORK # a `-mod=vendor` of the caller's would break this
  go mod init parts
  go mod edit -require="$module"
  [[ $module != k8s.io/kubernetes@* ]] || replace_staging "$module"
  # Without debugging data: smaller and built sooner.
  CGO_ENABLED=$cgo go build -mod=mod -buildvcs=false -trimpath -tags="$tags" -gcflags=all=-dwarf=false \
    -ldflags="-s -w $flags" -o bin/ "${packages[@]}"
  mv bin "$folder"
  rm -rf "$work"
}

replace_staging() { # Kubernetes' go.mod finds 31 modules in its own tree; they are published as k8s.io/X v0.Y.Z
  local module=$1 folder name
  folder=$(module_folder "$module")
  while read -r name; do go mod edit -replace="$name=$name@v0.${module#*@v1.}"; done < <(
    sed -n 's/.*=> \.\/staging\/src\///p' "$folder/go.mod"
  )
}
