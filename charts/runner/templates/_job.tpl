{{/* What `runner render` computes, computed by Helm: the run's specification, its id, its Job. Both fill run/job.yaml in
with the same values; what is the same in every Job stands in run/fixed.json, which scripts/manifests writes. */}}

{{/* A value without keys that hold null, at any depth, as JSON under the key "v". */}}
{{- define "runner.bare" -}}
{{- if kindIs "map" . -}}
  {{- $bare := dict -}}
  {{- range $key, $value := . -}}
    {{- if not (kindIs "invalid" $value) -}}
      {{- $_ := set $bare $key (include "runner.bare" $value | fromJson).v -}}
    {{- end -}}
  {{- end -}}
  {{- dict "v" $bare | toRawJson -}}
{{- else if kindIs "slice" . -}}
  {{- $bare := list -}}
  {{- range . }}{{ $bare = append $bare (include "runner.bare" . | fromJson).v }}{{ end -}}
  {{- dict "v" $bare | toRawJson -}}
{{- else -}}
  {{- dict "v" . | toRawJson -}}
{{- end -}}
{{- end -}}

{{/* Text whose characters every reader of YAML takes as they are: others are written as escapes of JSON. */}}
{{- define "runner.printable" -}}
{{- $text := . -}}
{{- range concat (untilStep 127 160 1) (list 8232 8233 65279 65534 65535) -}}
  {{- $text = replace (printf "%c" .) (printf "\\u%04x" .) $text -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{/* The members of a list in the order of another one. */}}
{{- define "runner.ordered" -}}
{{- $found := list -}}
{{- range .order }}{{ if has . $.of }}{{ $found = append $found . }}{{ end }}{{ end -}}
{{- dict "v" $found | toRawJson -}}
{{- end -}}

{{/* The raw fields of pods. */}}
{{- define "runner.pod" -}}
{{- $pod := (include "runner.bare" .Values.pod | fromJson).v -}}
{{- if not $pod.image }}{{ fail "pod.image: no image is configured; give --set pod.image=IMAGE" }}{{ end -}}
{{- $_ := include "runner.store" (dict "store" .Values.run.store "mounts" ($pod.volumeMounts | default list)) -}}
{{- $pod | toRawJson -}}
{{- end -}}

{{/* Refuse a store that no pod sees. */}}
{{- define "runner.store" -}}
{{- if not .store }}{{ fail "run.store: no store is configured; give gs://bucket/prefix" }}{{ end -}}
{{- $seen := hasPrefix "gs://" .store -}}
{{- $path := printf "%s/" (trimPrefix "file://" .store) -}}
{{- range .mounts }}{{ if hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $path }}{{ $seen = true }}{{ end }}{{ end -}}
{{- if not $seen -}}
  {{- fail (printf "run.store %s: no pod sees it; give gs://bucket/prefix, or mount its directory with pod.volumes and pod.volumeMounts" .store) -}}
{{- end -}}
{{- end -}}

{{/* The first and last day, as text: both are days of the calendar, in their order. */}}
{{- define "runner.days" -}}
{{- $run := .Values.run -}}
{{- if not $run.startDate }}{{ fail "run.startDate: the newest day is known to the source alone, and nobody is asked here; give a day as YYYY-MM-DD" }}{{ end -}}
{{- $days := list $run.startDate ($run.endDate | default $run.startDate) -}}
{{- range $days -}}
  {{- if (toDate "2006-01-02" .).IsZero }}{{ fail (printf "run: %s is not a day of the calendar" .) }}{{ end -}}
{{- end -}}
{{- $span := sub (toDate "2006-01-02" (index $days 1)).Unix (toDate "2006-01-02" (index $days 0)).Unix -}}
{{- if lt $span 0 }}{{ fail "run.endDate: is before run.startDate; the end is inclusive" }}{{ end -}}
{{- if gt $span (add (mul .fixed.maxDays 86400) 43200) }}{{ fail (printf "run: over %v days; split the request" .fixed.maxDays) }}{{ end -}}
{{- $days | toRawJson -}}
{{- end -}}

{{/* The run's specification: every key, lists in their own order, where it runs. */}}
{{- define "runner.spec" -}}
{{- $run := omit .Values.run "enabled" -}}
{{- range .fixed.nullable }}{{ $_ := set $run . (get $run . | default nil) }}{{ end -}}
{{- range $key, $order := .fixed.orders -}}
  {{- $_ := set $run $key (include "runner.ordered" (dict "order" $order "of" (get $run $key)) | fromJson).v -}}
{{- end -}}
{{- $_ := set $run "instruments" (sortAlpha $run.instruments) -}}
{{- $_ := set $run "parallelism" (min $run.parallelism $run.shards) -}}
{{- $_ := set $run "backend" "kubernetes" -}}
{{- $_ := set $run "namespace" .Release.Namespace -}}
{{- $_ := set $run "context" nil -}}
{{- $_ := set $run "image" .Values.pod.image -}}
{{- $run | toRawJson -}}
{{- end -}}

{{/* The run's id: a hash of what is asked, and of nothing of how it is carried out. */}}
{{- define "runner.id" -}}
{{- $run := .run -}}
{{- $request := pick $run "stage" "maxInstruments" "select" "parent" "deep" "store" -}}
{{- range list "venues" "instrumentTypes" "instruments" "dataTypes" }}{{ $_ := set $request . (sortAlpha (get $run .)) }}{{ end -}}
{{- $_ := set $request "days" .days -}}
{{- $_ := set $request "layout" .fixed.layout -}}
{{- $_ := set $request "schema" .fixed.schema -}}
{{- printf "%s-%s" $run.stage ($request | toRawJson | sha256sum | trunc 8) -}}
{{- end -}}

{{/* A run's Job. */}}
{{- define "runner.job" -}}
{{- $fixed := .Files.Get "run/fixed.json" | fromJson -}}
{{- $with := dict "Values" .Values "Release" .Release "fixed" $fixed -}}
{{- $pod := include "runner.pod" . | fromJson -}}
{{- $days := include "runner.days" $with | fromJsonArray -}}
{{- $spec := include "runner.spec" $with -}}
{{- $run := $spec | fromJson -}}
{{- $id := include "runner.id" (dict "run" $run "days" $days "fixed" $fixed) -}}
{{- if gt (len $spec) (int $fixed.variableBytes) }}{{ fail "run: its request is too long; name instruments by globs" }}{{ end -}}
{{- $labels := dict -}}
{{- range list ($pod.labels | default dict) $fixed.labels (dict $fixed.runLabel $id $fixed.stageLabel $run.stage) -}}
  {{- range $key, $value := . }}{{ $_ := set $labels $key $value }}{{ end -}}
{{- end -}}
{{- /* The kubelet puts variables in for $(NAME), and $ for $$. */ -}}
{{- $env := list (dict "name" "RUNNER_RUN" "value" $id) (dict "name" "RUNNER_SPEC" "value" (replace "$" "$$" $spec)) -}}
{{- $env = concat $env $fixed.env -}}
{{- $volumes := concat (list (dict "name" "scratch" "emptyDir" ($pod.scratch | default dict))) $fixed.volumes -}}
{{- $mounts := $fixed.mounts -}}
{{- if $pod.tardisKey -}}
  {{- $env = concat $env $fixed.key.env -}}
  {{- $volumes = append $volumes (dict "name" $fixed.key.mount.name "secret" $pod.tardisKey) -}}
  {{- $mounts = append $mounts $fixed.key.mount -}}
{{- end -}}
{{- range $pod.env -}}
  {{- $name := .name -}}
  {{- range append $env (dict "name" $fixed.key.variable) -}}
    {{- if eq .name $name }}{{ fail (printf "pod.env names %s, which a run sets itself; take it out" $name) }}{{ end -}}
  {{- end -}}
{{- end -}}
{{- $job := dict "name" $id "namespace" .Release.Namespace "labels" $labels "podFailurePolicy" $fixed.podFailurePolicy -}}
{{- $_ := set $job "env" (concat $env ($pod.env | default list)) -}}
{{- $_ := set $job "volumes" (concat $volumes ($pod.volumes | default list)) -}}
{{- $_ := set $job "volumeMounts" (concat $mounts ($pod.volumeMounts | default list)) -}}
{{- $values := dict "run" $run "pod" $pod "job" $job -}}
{{- tpl (.Files.Get "run/job.yaml") (dict "Values" $values "Template" .Template) | include "runner.printable" -}}
{{- end -}}
