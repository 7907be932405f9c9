// Renders Go templates as Ollama does: reads [{"template": …, "messages": [{"role": …, "content": …}]}] from standard input and
// writes a JSON list of the rendered texts. Ollama passes .Messages, whose elements have the fields Role and Content.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type message struct{ Role, Content string }

type request struct {
	Template string
	Messages []*message
}

func main() {
	var requests []request
	if err := json.NewDecoder(os.Stdin).Decode(&requests); err != nil {
		panic(err)
	}
	texts := make([]string, len(requests))
	for i, r := range requests {
		parsed := template.Must(template.New("").Option("missingkey=zero").Parse(r.Template))
		var text strings.Builder
		if err := parsed.Execute(&text, map[string]any{"Messages": r.Messages, "System": "", "Response": ""}); err != nil {
			panic(err)
		}
		texts[i] = text.String()
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(texts); err != nil {
		panic(err)
	}
}
